//! The watched folder: which files are whole, and which were seen before.
