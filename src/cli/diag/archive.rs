//! The archive: named texts in one compressed tar, for its owner alone.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::SystemTime;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, Header};

/// All entries lie below this.
const FOLDER: &str = "landmarkd-diag";

/// Texts and their names, in order.
#[derive(Debug, Default)]
pub(super) struct Texts(Vec<(&'static str, String)>);

impl Texts {
    /// Puts a text in.
    pub(super) fn add(&mut self, name: &'static str, text: impl Into<String>) {
        self.0.push((name, text.into()));
    }

    /// The names and sizes, for the person who will send it.
    pub(super) fn outline(&self) -> String {
        self.0.iter().map(|(name, text)| format!("{:>9} bytes  {name}\n", text.len())).collect()
    }

    /// Writes a new file of mode 0600, or nothing: what could not be finished is removed.
    ///
    /// # Errors
    /// Where it cannot be written, or is there already.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        self.pack(file).inspect_err(|_| drop(std::fs::remove_file(path)))
    }

    fn pack(&self, file: File) -> io::Result<()> {
        let mut archive = Builder::new(GzEncoder::new(file, Compression::default()));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        for (name, text) in &self.0 {
            let mut header = Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(now);
            archive.append_data(&mut header, format!("{FOLDER}/{name}"), text.as_bytes())?;
        }
        archive.into_inner()?.finish()?.sync_all()
    }
}
