//! `landmarkd doctor`: what is right and what is wrong with an installation, each with what to do.
//!
//! `--gpu` looks at the machine under the network instead (`gpu`): what it is, and how fast and how well it computes.
//!
//! Every check is plain data ([`Check`]), one file a subject; nothing here changes anything: no state is opened for
//! writing, no film is read, and what is asked of the broker reaches no subscriber.

mod accelerator;
mod broker;
mod check;
mod examine;
mod folder;
mod gpu;
mod machine;
mod measure;
mod model;
mod state;
mod tensorrt;

pub use check::{Check, Report, Verdict};
pub use examine::{Arguments, doctor, examine};
pub(super) use machine::ask;
pub(super) use state::{Holder, holder};
