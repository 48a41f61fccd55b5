//! PyTorch's own files of weights (`torch.save(model.state_dict(), ..)`): the ZIP archive that it writes since 1.6, and
//! the row of pickles of before, in which older torchvision weights come.

use std::collections::HashMap;
use std::io::{Cursor, Read};

use half::{bf16, f16};

use super::batch::{Array, Weights};
use super::initial::numbers;
use super::pickle::{TensorView, Unpickled, Value, unpickle};

/// An archive's first bytes.
const ZIP: &[u8] = b"PK\x03\x04";
/// Of a file of before 1.6: the pickle of its magic number, 0x1950a86a20f9469cfc6c.
const LEGACY: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";
/// A training checkpoint holds its weights under one of these.
const NESTED: [&str; 3] = ["state_dict", "model_state_dict", "model"];

/// The float tensors of a PyTorch file by name, and the names of the others.
///
/// # Errors
/// One sentence that says what is wrong with it.
pub(super) fn read(bytes: &[u8]) -> Result<(Weights, Vec<String>), String> {
    if bytes.starts_with(ZIP) {
        archive(bytes)
    } else if bytes.starts_with(LEGACY) {
        legacy(bytes)
    } else {
        Err("it is no file that torch.save writes".to_owned())
    }
}

fn archive(bytes: &[u8]) -> Result<(Weights, Vec<String>), String> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|e| e.to_string())?;
    let names: Vec<String> = archive.file_names().flatten().map(|name| name.into_owned()).collect();
    let root = names
        .iter()
        .find_map(|name| name.strip_suffix("data.pkl"))
        .ok_or("the archive holds no data.pkl, as torch.save writes it")?;
    let mut entry = |name: &str| -> Result<Vec<u8>, String> {
        let said = |e: &dyn std::fmt::Display| format!("{name} in the archive: {e}");
        let mut bytes = Vec::new();
        archive.by_name(name).map_err(|e| said(&e))?.read_to_end(&mut bytes).map_err(|e| said(&e))?;
        Ok(bytes)
    };
    let order = format!("{root}byteorder");
    if names.contains(&order) && entry(&order)? != b"little" {
        return Err("its numbers are big-endian; save it on a little-endian machine".to_owned());
    }
    let saved = unpickle(&entry(&format!("{root}data.pkl"))?)?;
    weights(&saved, |key| entry(&format!("{root}data/{key}")))
}

fn legacy(bytes: &[u8]) -> Result<(Weights, Vec<String>), String> {
    let mut rest = bytes;
    let mut next = || -> Result<Unpickled, String> {
        let found = unpickle(rest)?;
        rest = &rest[found.length..];
        Ok(found)
    };
    // Magic number, version and the writer's machine.
    for _ in 0..3 {
        next()?;
    }
    let (saved, keys) = (next()?, next()?);
    let classes: HashMap<&str, &str> = saved.storages.iter().map(|s| (s.key.as_str(), s.class.as_str())).collect();
    let Value::List(keys_at) = keys.value else { return Err("it does not list its storages".to_owned()) };
    let mut stored = HashMap::new();
    for key in keys.list(keys_at) {
        let Value::Text(key) = key else { return Err("it does not list its storages".to_owned()) };
        let cut = || format!("it ends within storage {key}");
        let (count, behind) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
        let class = classes.get(key.as_str()).ok_or_else(|| format!("nothing says of what type storage {key} is"))?;
        let width = width(class).ok_or_else(|| format!("storage {key} is a {class}, whose size is not known"))?;
        let length = u64::from_le_bytes(*count) as usize;
        let (numbers, behind) =
            length.checked_mul(width).and_then(|length| behind.split_at_checked(length)).ok_or_else(cut)?;
        stored.insert(key.clone(), numbers);
        rest = behind;
    }
    weights(&saved, |key| {
        stored.get(key).map(|numbers| numbers.to_vec()).ok_or_else(|| format!("it holds no storage {key}"))
    })
}

/// Bytes of a number.
fn width(class: &str) -> Option<usize> {
    Some(match class.strip_prefix("torch.")? {
        "DoubleStorage" | "LongStorage" => 8,
        "FloatStorage" | "IntStorage" => 4,
        "HalfStorage" | "BFloat16Storage" | "ShortStorage" => 2,
        "ByteStorage" | "CharStorage" | "BoolStorage" => 1,
        _ => return None,
    })
}

/// The dictionary of tensors that was saved, or the one in a training checkpoint.
fn named_tensors(saved: &Unpickled) -> Result<Vec<(&str, &TensorView)>, String> {
    let Value::Dict(place) = saved.value else { return Err("it holds no dictionary of tensors".to_owned()) };
    let tensors = |place| -> Vec<(&str, &TensorView)> { saved.dict(place).iter().filter_map(named_tensor).collect() };
    let nested = || {
        saved.dict(place).iter().find_map(|(name, value)| match (name, value) {
            (Value::Text(name), Value::Dict(place)) if NESTED.contains(&name.as_str()) => Some(tensors(*place)),
            _ => None,
        })
    };
    // Nested first: beside its weights a checkpoint may hold other tensors, as the best accuracy so far.
    let found = nested().unwrap_or_else(|| tensors(place));
    if found.is_empty() {
        return Err(format!("it holds no tensors by name, nor under any of {NESTED:?}; save a state_dict"));
    }
    Ok(found)
}

fn named_tensor((name, value): &(Value, Value)) -> Option<(&str, &TensorView)> {
    match (name, value) {
        (Value::Text(name), Value::Tensor(tensor)) => Some((name, tensor)),
        _ => None,
    }
}

fn weights(
    saved: &Unpickled,
    mut storage: impl FnMut(&str) -> Result<Vec<u8>, String>,
) -> Result<(Weights, Vec<String>), String> {
    let (mut weights, mut skipped) = (Weights::new(), Vec::new());
    for (name, view) in named_tensors(saved)? {
        let Some(widen) = float(&view.storage.class) else {
            skipped.push(name.to_owned());
            continue;
        };
        let numbers = widen(&storage(&view.storage.key)?);
        let values = shown(view, &numbers).ok_or_else(|| {
            format!("{name}: its shape {:?} reaches beyond the {} numbers it lies in", view.shape, numbers.len())
        })?;
        weights.insert(name.to_owned(), Array { shape: view.shape.clone(), values });
    }
    Ok((weights, skipped))
}

/// Bytes of a storage as numbers.
type Floats = fn(&[u8]) -> Vec<f32>;

/// How the numbers of a storage are read, if they are floats.
fn float(class: &str) -> Option<Floats> {
    Some(match class {
        "torch.FloatStorage" => |data| numbers(data, f32::from_le_bytes),
        "torch.DoubleStorage" => |data| numbers(data, |bytes| f64::from_le_bytes(bytes) as f32),
        "torch.HalfStorage" => |data| numbers(data, |bytes| f16::from_le_bytes(bytes).to_f32()),
        "torch.BFloat16Storage" => |data| numbers(data, |bytes| bf16::from_le_bytes(bytes).to_f32()),
        _ => return None,
    })
}

/// The tensor's numbers row by row; `None` where one lies outside.
fn shown(view: &TensorView, numbers: &[f32]) -> Option<Vec<f32>> {
    let count = view.shape.iter().try_fold(1_usize, |product, &extent| product.checked_mul(extent))?;
    // A stride of 0 repeats numbers; no weights are saved so, and a forged one would fill the memory.
    if count > numbers.len() {
        return None;
    }
    (0..count)
        .map(|mut index| {
            let mut at = view.offset;
            for (&extent, &stride) in view.shape.iter().zip(&view.strides).rev() {
                at = at.checked_add((index % extent).checked_mul(stride)?)?;
                index /= extent;
            }
            numbers.get(at).copied()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both hold what `tests/parity/state_dict.py` saves.
    const ARCHIVE: &[u8] = include_bytes!("../../tests/parity/state_dict.pth");
    const OLD: &[u8] = include_bytes!("../../tests/parity/state_dict_legacy.pth");
    const CHECKPOINT: &[u8] = include_bytes!("../../tests/parity/checkpoint.pth");

    #[test]
    fn what_pytorch_saved_is_read_in_both_its_formats_and_out_of_a_checkpoint() {
        for (name, file) in [("archive", ARCHIVE), ("legacy", OLD), ("checkpoint", CHECKPOINT)] {
            let (weights, skipped) = read(file).unwrap_or_else(|why| panic!("{name}: {why}"));
            assert_eq!(skipped, ["bn1.num_batches_tracked"], "{name}");
            let array = |shape: &[usize], values: Vec<f32>| Array { shape: shape.to_vec(), values };
            let counted = |n: usize| (0..n).map(|v| v as f32).collect::<Vec<f32>>();
            let expected = Weights::from([
                ("bn1.bias".to_owned(), array(&[3], vec![0.5, -1.5, 2.5])),
                ("bn1.running_mean".to_owned(), array(&[3], vec![0.0, 0.0, 0.0])),
                ("bn1.running_var".to_owned(), array(&[3], vec![1.0, 1.0, 1.0])),
                ("bn1.weight".to_owned(), array(&[3], vec![1.0, 2.0, 4.0])),
                ("conv1.weight".to_owned(), array(&[3, 1, 2, 2], counted(12))),
                ("double".to_owned(), array(&[2], vec![0.25, -8.0])),
                // One memory shown from its third number on, and one with its axes exchanged.
                ("tail".to_owned(), array(&[2], vec![2.0, 3.0])),
                ("transposed".to_owned(), array(&[3, 2], vec![0.0, 3.0, 1.0, 4.0, 2.0, 5.0])),
            ]);
            assert_eq!(weights, expected, "{name}");
        }
    }

    #[test]
    fn what_is_cut_or_something_else_is_refused_in_a_sentence() {
        assert_eq!(read(b"GIF89a").expect_err("a picture"), "it is no file that torch.save writes");
        for file in [ARCHIVE, OLD] {
            for length in 0..file.len() {
                assert!(read(&file[..length]).is_err(), "cut to {length} of {} bytes", file.len());
            }
        }
        let view = |shape: &[usize], strides: &[usize]| TensorView {
            storage: super::super::pickle::Storage { class: "torch.FloatStorage".into(), key: "0".into() },
            offset: 0,
            shape: shape.to_vec(),
            strides: strides.to_vec(),
        };
        assert_eq!(shown(&view(&[2, 2], &[2, 1]), &[1.0, 2.0, 3.0]), None);
        assert_eq!(shown(&view(&[usize::MAX, 2], &[0, 0]), &[1.0]), None);
        assert_eq!(shown(&view(&[0], &[1]), &[]), Some(Vec::new()));
    }
}
