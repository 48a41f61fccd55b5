//! The broker: connection, publisher, backoff.
