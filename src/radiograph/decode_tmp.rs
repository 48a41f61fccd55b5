//! tmp
use super::Radiograph;
use crate::geometry::Size;
/// tmp
#[derive(Default)]
pub struct Limits;
/// tmp
pub fn decode(bytes: &[u8], _: &Limits) -> Result<Radiograph, image::ImageError> {
    let g = image::load_from_memory(bytes)?.into_luma8();
    let size = Size::new(g.width(), g.height());
    Ok(Radiograph::gray(size, g.into_raw().into_iter().map(|v| u16::from(v) * 257).collect()))
}
