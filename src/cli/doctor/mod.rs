//! `landmarkd doctor`: what is right and what is wrong with an installation, each with what to do.
//!
//! Every check is plain data ([`Check`]), one file a subject; nothing here changes anything: no state is opened for
//! writing, no film is read, and what is asked of the broker reaches no subscriber.

mod accelerator;
mod broker;
mod check;
mod examine;
mod folder;
mod machine;
mod model;
mod state;

pub use check::{Check, Report, Verdict};
pub use examine::{Arguments, doctor, examine};
pub(super) use machine::ask;
pub(super) use state::{Holder, holder};
