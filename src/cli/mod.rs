//! The command line, one file a subcommand.
//!
//! Standard output carries what was asked for and nothing else; progress, warnings and the journal go to standard
//! error. Every way to end is an [`Exit`].

pub mod allocator;
pub mod bench;
pub mod check_config;
mod command;
pub mod completions;
pub mod demo;
pub mod diag;
pub mod doctor;
pub mod engine;
mod exit;
mod film_files;
mod film_variant;
mod live;
pub mod logging;
pub mod man;
pub mod model;
mod model_text;
pub mod panics;
pub mod predict;
pub mod replay;
pub mod run;
pub mod schema;
mod session;
pub mod spool;
mod table;

pub use command::Arguments;
pub use exit::{Exit, Failure, chain};
