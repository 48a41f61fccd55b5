//! landmarkd watches the folder an X-ray unit writes to, localizes anatomical landmarks on every new film and
//! publishes them over MQTT. It runs unattended: nothing may be lost, nobody gets in, and it says what is wrong.
//!
//! # How a film travels
//!
//! ```text
//!  folder ─► acquisition ─► [ daemon's worker: one thread that owns the network ]      ┌─► broker ─► subscribers
//!            watch, settle,   analysis:                                                 │
//!            whole?, known?   radiograph ─► inference ─► report ─► outbox (on disk) ─► mqtt
//!                             decode        frame,       event     + ledger:            one at a time,
//!                             gray values   network,     with id   one transaction      until PUBACK
//!                                           way back
//! ```
//!
//! Follow one film through the code:
//!
//! 1. [`acquisition`]: a scan or an inotify hint sights a file; it settles; it is read once, below the folder and
//!    without following links; its structure says whether it is whole; the ledger says whether its bytes are new.
//! 2. [`daemon`]'s worker marks the attempt on disk, *before* anything looks inside the film.
//! 3. [`analysis`] turns its bytes into a result: [`radiograph`] decodes to 16-bit gray, as a person would see it, and
//!    warps that into the NFDP frame ([`geometry`]); [`inference`] runs the network of the [`model`] bundle and takes
//!    its answer back to source pixels, as [`landmark`]s.
//! 4. [`report`] gives the result its form on the wire and an id that never changes for the same film, model and
//!    settings.
//! 5. [`outbox`] and ledger take it in one transaction of the [`store`]: event, sequence number and "done" become
//!    durable together or not at all.
//! 6. [`mqtt`] sends the head of the outbox, waits for the broker's PUBACK, judges its reason, and only then goes on to
//!    the next; the outbox keeps what was delivered for a while, for subscribers that ask for it again.
//!
//! A film that cannot be decoded, or that killed the daemon three times, goes to quarantine, and its *refusal* takes
//! the same way: sequenced, durable, delivered.
//!
//! # Rooms
//!
//! | room | what it holds | knows |
//! |---|---|---|
//! | [`geometry`], [`landmark`], [`disposition`] | points, spacing, the frame; what was found; what an error asks for | nothing |
//! | [`radiograph`] | bytes to gray values to the network's input | geometry |
//! | [`model`] | a bundle: manifest, digests, golden film; the store of signed ones and which of them serves | geometry, measure, crash_point |
//! | [`inference`] | the trait `Detector`; tract behind it, with convolutions of our own; TensorRT on a GPU, guarded by the processor; the way back to source pixels | radiograph, model |
//! | [`measure`] | clinical measures from landmarks: angles, ratios, distances | geometry, landmark |
//! | [`report`] | the published documents, topics, ids, schemas | geometry, measure |
//! | [`analysis`] | bytes to result, in one call | the five above |
//! | [`acquisition`] | the folder: watch, settle, completeness, ledger, quarantine | report, config |
//! | [`store`], [`secret`] | the state directory and the room on its disk; keys and passwords | report, pulse |
//! | [`outbox`] | the durable queue and the archive of what was delivered; its invariants stand first | store, report |
//! | [`mqtt`] | the connection, the rules of delivery, commands and replays; a loopback broker for demo and tests | outbox, report |
//! | [`config`] | TOML and environment to checked settings; every default in one place | geometry, measure |
//! | [`telemetry`] | the machine: board, clocks, temperatures, power, throttling; from files first, then NVML | report |
//! | [`health`] | metrics, health checks and the status page over HTTP | report, telemetry |
//! | [`overlay`] | a film with its landmarks drawn for a person | radiograph, landmark |
//! | [`daemon`] | the wiring, supervision and stop | everything |
//! | [`cli`] | one file a subcommand | everything |
//! | [`pulse`] | whether a stage still gets on with its work, for the watchdog | nothing |
//! | [`crash_point`] | named places where a test kills or hangs the process | nothing |
//! | `fuzzing` (feature `fuzzing`) | doors to the parsers for `tests/fuzz` | everything |
//! | `train` (feature `train`) | data sets, augmentation, metrics, runs, export | geometry, radiograph, inference, model |
//! | `network` (feature `torch`) | NFDP, its flow and its loss on LibTorch | geometry, train's plain vectors |
//!
//! `tests/tidy.rs` holds these lines.
//!
//! # What never happens
//!
//! - Nothing writes in the acquisition folder unless `acquisition.after` says so.
//! - No event stops waiting in the outbox before the broker acknowledged it with a reason that counts.
//! - No patient data, file name or unkeyed identifier is in a document, a log line or an error.
//! - No type of a neural-network framework leaves [`inference`] or `network`; no MQTT type leaves [`mqtt`].
//! - Coordinates that leave [`inference`] are source pixels: centres at integers, x right, y down.
//! - No secret is read from the environment or the command line.
//!
//! # Where do I change ..?
//!
//! | .. | there |
//! |---|---|
//! | a field of the result | `report/film.rs`; the schema follows |
//! | a configuration key | `config/file.rs`, `config/keys.rs`, `systemd/etc/landmarkd/landmarkd.toml`; tests name what is missing |
//! | a file format | `radiograph/format.rs` and a decoder beside it; `acquisition/completeness/` for "is it whole?" |
//! | a rule of delivery | `mqtt/delivery.rs` |
//! | what a device can be asked | `report/command.rs`, `mqtt/commands.rs` |
//! | a step after which something is durable | inside `crash_point::step`, with a walk in `tests/crash.rs` |
//! | what a GPU computes, or why it is given up | `inference/tensorrt/`; the daemon's side is `daemon/accelerate.rs` |
//! | the C face of TensorRT | `inference/tensorrt/shim/`, `native.rs` and `tests/support/tensorrt/fake.c`; raise the revision of all |
//! | what is told of the machine | `telemetry/`, `report/status.rs`, `health/metrics/machine.rs` |
//! | the packages | `Cargo.toml`'s `[package.metadata.deb]`, `cross/deb/` |
//! | a runtime for the network | a file in `inference/` that implements `Detector` |
//! | a clinical measure | a file in `measure/`; a bundle's manifest says which it yields |
//! | how a bundle is trusted, or given up | `model/signature.rs`, `model/runs.rs`; the daemon's side is `daemon/bundles.rs` |
//! | what is known of the machine | a file in `telemetry/`, `telemetry/machine.rs`; the boards of `tests/support/boards.rs` |
//! | the network itself | `network/`, then `train/export.rs`, then `tests/parity/` |

pub mod acquisition;
pub mod analysis;
pub mod cli;
pub mod config;
pub mod crash_point;
pub mod daemon;
pub mod disposition;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod geometry;
pub mod health;
pub mod inference;
pub mod landmark;
pub mod measure;
pub mod model;
pub mod mqtt;
#[cfg(feature = "torch")]
pub mod network;
pub mod outbox;
pub mod overlay;
pub mod pulse;
pub mod radiograph;
pub mod report;
pub mod secret;
pub mod store;
pub mod telemetry;
#[cfg(feature = "train")]
pub mod train;
