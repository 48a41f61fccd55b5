//! The durable queue between inference and the broker.
