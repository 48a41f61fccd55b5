//! Weights on disk: safetensors, written whole or not at all.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::batch::{Array, Weights};

/// Beside a run's checkpoints: where its films lie, a [`Source`](super::datasets::Source).
pub const FILMS_FILE: &str = "films.toml";
/// In a run's checkpoints: the [`films_sha256`](super::datasets::Source::films_sha256) of the films that it was given.
pub const SET_SHA256: &str = "set_sha256";

/// Why weights could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not a safetensors file of f32 tensors.
    #[error("{path}: {reason}")]
    Format {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Reads every f32 tensor of a safetensors file, and its text metadata.
///
/// # Errors
/// When the file cannot be read, is damaged or holds another type.
pub fn read(path: &Path) -> Result<(Weights, HashMap<String, String>), CheckpointError> {
    let bytes = fs::read(path).map_err(|source| CheckpointError::Io { path: path.to_owned(), source })?;
    let format = |reason: String| CheckpointError::Format { path: path.to_owned(), reason };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| format(e.to_string()))?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|e| format(e.to_string()))?;
    let mut weights = Weights::new();
    for (name, view) in tensors.tensors() {
        if view.dtype() != Dtype::F32 {
            return Err(format(format!("{name} is {:?}, expected F32", view.dtype())));
        }
        let (values, _) = view.data().as_chunks::<4>();
        let values = values.iter().map(|b| f32::from_le_bytes(*b)).collect();
        weights.insert(name, Array { shape: view.shape().to_vec(), values });
    }
    Ok((weights, header.metadata().clone().unwrap_or_default()))
}

/// Writes weights and text metadata: to a temporary file, synced, then renamed over `path`.
///
/// # Errors
/// When the folder or disk refuses; an older file at `path` is then untouched.
pub fn write(path: &Path, weights: &Weights, metadata: HashMap<String, String>) -> Result<(), CheckpointError> {
    let io = |source| CheckpointError::Io { path: path.to_owned(), source };
    let bytes: Vec<(&String, &Array, Vec<u8>)> = weights
        .iter()
        .map(|(name, array)| (name, array, array.values.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let views = bytes
        .iter()
        .map(|(name, array, data)| {
            let view = TensorView::new(Dtype::F32, array.shape.clone(), data)
                .map_err(|e| CheckpointError::Format { path: path.to_owned(), reason: format!("{name}: {e}") })?;
            Ok((name.as_str(), view))
        })
        .collect::<Result<Vec<_>, CheckpointError>>()?;
    let serialised = safetensors::serialize(views, &Some(metadata))
        .map_err(|e| CheckpointError::Format { path: path.to_owned(), reason: e.to_string() })?;
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary).map_err(io)?;
    file.write_all(&serialised).map_err(io)?;
    file.sync_all().map_err(io)?;
    fs::rename(&temporary, path).map_err(io)?;
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        File::open(folder).and_then(|f| f.sync_all()).map_err(io)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_and_metadata_come_back_bit_for_bit() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("w.safetensors");
        let odd = Array { shape: vec![2, 2], values: vec![f32::MIN_POSITIVE, -0.0, 1.0 / 3.0, f32::MAX] };
        let weights =
            Weights::from([("b".to_owned(), odd), ("a".to_owned(), Array { shape: vec![0], values: vec![] })]);
        write(&path, &weights, HashMap::from([("epoch".into(), "3".into())])).expect("a writable folder");
        let (read, metadata) = read(&path).expect("what was just written");
        assert_eq!(read, weights);
        assert_eq!(metadata["epoch"], "3");
        assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_cut_file_is_named() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("cut.safetensors");
        fs::write(&path, [9u8, 0, 0, 0, 0, 0, 0, 0, b'{']).expect("a writable folder");
        let error = read(&path).expect_err("the header is cut").to_string();
        assert!(error.contains("cut.safetensors"), "{error}");
    }
}
