//! How the daemon and its machine are, for a person with a browser and for Prometheus (R45).
//!
//! ```text
//!  worker, folder, publisher ──► Metrics, Films, Overlays          (counted and noted where it happens, no waiting)
//!  daemon ──► Look: StatusView, put together at each request       (plain data; from watches and atomics only)
//!  HealthServer ──► /metrics  /healthz  /readyz  /  /status.json  /overlays/<n>.png
//! ```
//!
//! # What never happens
//!
//! - Nothing here holds up a film: what is told to this room is an atomic or a short lock, and what a person asks for is
//!   answered on the runtime without touching the disk.
//! - No label, document or page holds a file name, a path or anything a patient could be known by: labels are closed
//!   sets, a film is known by its event's number. The pictures show the films themselves, burnt-in text included.
//! - A client cannot take memory or time without bound: heads, connections, waits and pictures all have limits.
//!
//! Everything that is said of the machine is optional and asked anew each time.

mod exposition;
mod films;
mod http;
mod labels;
mod metrics;
mod overlays;
mod page;
mod process;
mod request;
mod response;
mod routes;
mod trouble;
mod view;
mod words;

pub use films::Films;
pub use http::{HealthServer, HttpError, HttpOptions};
pub use labels::{
    AcceleratorFault, AcceleratorWord, Code, Connection, Event, FaultCause, FilmEnd, FolderWord, Stage, Step,
};
pub use metrics::{Counter, Gauge, Histogram, Metrics, Of, Stopwatch};
pub use overlays::{Overlays, PictureError, to_png};
#[cfg(feature = "fuzzing")]
pub(crate) use request::fuzz;
pub use routes::{Health, Look};
pub use trouble::Trouble;
pub use view::{
    AcceleratorView, BrokerView, Counts, DiskView, FilmView, ModelView, QueueView, ServiceWord, StageView, StatusView,
    StepTimes,
};
