//! `landmarkd diag`: one archive to send to whoever helps, without anything a patient could be known by (R47).
//!
//! The archive is put together from a list of what may be in it, never from a folder: no film, no event, nothing of
//! the quarantine, no file's name. The acquisition folder and the one films are moved to are named by people, so their
//! paths are withheld everywhere ([`Withheld`]), and of the configuration only keys whose values name nobody are
//! shown. Secrets are files and are never opened; their paths are shown.

mod archive;
mod collect;
mod withheld;

pub use collect::{Arguments, diag};
pub use withheld::Withheld;
