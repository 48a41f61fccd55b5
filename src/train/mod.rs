//! The workstation trainer (feature `train`).
