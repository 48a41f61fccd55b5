//! landmarkd (map to be written)

pub mod acquisition;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod disposition;
pub mod geometry;
pub mod health;
pub mod inference;
pub mod landmark;
pub mod model;
pub mod mqtt;
#[cfg(feature = "torch")]
pub mod network;
pub mod outbox;
pub mod radiograph;
pub mod report;
pub mod secret;
pub mod store;
#[cfg(feature = "train")]
pub mod train;
