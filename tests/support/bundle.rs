//! The model bundle under test: the repository's own, or the one that `LANDMARKD_TEST_MODEL` names.

use std::path::PathBuf;

use landmarkd::model::Bundle;

/// Where it lies.
pub(crate) fn directory() -> PathBuf {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/models/ceph19-nfdp");
    std::env::var_os("LANDMARKD_TEST_MODEL").unwrap_or_else(|| own.into()).into()
}

/// The bundle, opened.
pub(crate) fn open() -> Bundle {
    let directory = directory();
    Bundle::open(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
}
