//! The state of the machine: GPU and memory.
