//! Names that are never films (R4a).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Unfinished copies, by the programs that make them.
const SUFFIXES: [&[u8]; 7] = [b"~", b".tmp", b".temp", b".part", b".partial", b".filepart", b".crdownload"];

/// What file servers, desktops and DICOM media keep beside the films; names with a dot in front are ignored anyway.
const NAMES: [&[u8]; 4] = [b"@eaDir", b"Thumbs.db", b"desktop.ini", b"DICOMDIR"];

/// Whether a file or folder of this name is passed over unseen.
///
/// `done_marker` is the suffix of done-markers where they are in use: a marker is no film.
#[must_use]
pub fn ignored(name: &OsStr, done_marker: Option<&str>) -> bool {
    let name = name.as_bytes();
    let ends_with = |suffix: &[u8]| {
        name.len().checked_sub(suffix.len()).is_some_and(|start| name[start..].eq_ignore_ascii_case(suffix))
    };
    name.starts_with(b".")
        || NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
        || SUFFIXES.iter().any(|suffix| ends_with(suffix))
        || done_marker.is_some_and(|suffix| !suffix.is_empty() && name.ends_with(suffix.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_and_foreign_names_are_ignored() {
        for (name, marker, expected) in [
            ("film.png", None, false),
            ("film.PNG.TMP", None, true),
            ("film.dcm.part", None, true),
            ("film.dcm~", None, true),
            ("~film.dcm", None, false),
            ("._film.dcm", None, true),
            (".stfolder", None, true),
            ("@eaDir", None, true),
            ("DICOMDIR", None, true),
            ("partial", None, false),
            ("film.png.done", None, false),
            ("film.png.done", Some(".done"), true),
            ("film.png", Some(".done"), false),
            ("film.png", Some(""), false),
        ] {
            assert_eq!(ignored(OsStr::new(name), marker), expected, "{name} with {marker:?}");
        }
    }
}
