//! The files of `predict`: reading films within the limits, writing pictures under unique names.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use image::{ColorType, ImageFormat};

/// Larger files are refused unread, as the daemon does by default (R12).
pub(super) const MAX_FILE_BYTES: u64 = 256 << 20;

/// Images of more pixels are refused before their pixels are decoded, as the daemon does by default (R12).
pub(super) const MAX_PIXELS: u64 = 100_000_000;

/// The bytes of a film, never more than `limit` in memory, whatever the file is.
///
/// # Errors
/// When it cannot be opened or read, or is larger.
pub(super) fn read_film(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let too_large = |bytes: u64| {
        io::Error::new(io::ErrorKind::FileTooLarge, format!("{bytes} bytes or more, the limit is {limit} bytes"))
    };
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    if size > limit {
        return Err(too_large(size));
    }
    let mut bytes = Vec::with_capacity(size as usize);
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(too_large(bytes.len() as u64)) } else { Ok(bytes) }
}

/// A folder that pictures are written to.
#[derive(Debug)]
pub(super) struct PictureFolder(PathBuf);

impl PictureFolder {
    /// Creates the folder where it is missing.
    ///
    /// # Errors
    /// When that is not possible.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        Ok(Self(path.to_path_buf()))
    }

    /// Writes `NAME.png` and returns its path.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn write(&self, name: &OsStr, pixels: &[u8], size: (u32, u32), kind: ColorType) -> io::Result<PathBuf> {
        let mut file = name.to_os_string();
        file.push(".png");
        let path = self.0.join(file);
        let written = image::save_buffer_with_format(&path, pixels, size.0, size.1, kind, ImageFormat::Png);
        written.map_err(|e| match e {
            image::ImageError::IoError(e) => e,
            other => io::Error::other(other),
        })?;
        Ok(path)
    }
}

/// The name of each film's pictures: its file stem; where stems repeat, `-2`, `-3`, .. is added in the order of `files`.
pub(super) fn picture_names(files: &[PathBuf]) -> Vec<OsString> {
    let mut taken = HashSet::new();
    let names = files.iter().map(|file| {
        let stem = file.file_stem().unwrap_or(OsStr::new("film"));
        let mut name = stem.to_os_string();
        let mut count = 1;
        while !taken.insert(name.clone()) {
            count += 1;
            name = stem.to_os_string();
            name.push(format!("-{count}"));
        }
        name
    });
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_stems_get_a_number() {
        let files = ["a/x.jpg", "b/x.dcm", "x-2.png", "x", "y.tar.gz", ".."].map(PathBuf::from);
        assert_eq!(picture_names(&files), ["x", "x-2", "x-2-2", "x-3", "y.tar", "film"]);
    }

    #[test]
    fn a_file_is_read_up_to_the_limit() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("film");
        fs::write(&path, [7; 10]).expect("an empty folder");
        assert_eq!(read_film(&path, 10).expect("just within"), [7; 10]);
        assert_eq!(read_film(&path, 9).expect_err("just beyond").kind(), io::ErrorKind::FileTooLarge);
        assert!(read_film(&folder.path().join("none"), 10).is_err());
        assert!(read_film(folder.path(), 1 << 20).is_err(), "a folder is no film");
    }

    #[test]
    fn a_device_without_end_is_given_up_at_the_limit() {
        let error = read_film(Path::new("/dev/zero"), 4096).expect_err("it never ends");
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn pictures_are_written_below_a_new_folder() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let pictures = PictureFolder::create(&folder.path().join("a/b")).expect("a writable folder");
        let path =
            pictures.write(OsStr::new("x.y"), &[0, 128, 255, 3], (2, 2), ColorType::L8).expect("a valid picture");
        assert!(path.ends_with("a/b/x.y.png"));
        assert_eq!(image::open(path).expect("what was written").to_luma8().into_raw(), [0, 128, 255, 3]);
    }
}
