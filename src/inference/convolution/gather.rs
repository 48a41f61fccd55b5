//! The pixels below a moving window, sorted so that a SIMD lane is a position of the window.

use super::at_least;

/// A square window that moves over an image in steps.
#[derive(Clone, Copy)]
pub(super) struct Window {
    /// Its side.
    pub(super) side: usize,
    /// How far it moves, in both directions.
    pub(super) step: usize,
    /// How far its first position lies above and to the left of the image.
    pub(super) padding: usize,
    /// Lanes of each pixel of the window.
    pub(super) lanes: usize,
}

/// Part of one row of positions: `count` of them from column `x` of row `y`, in the lanes from `lane`.
#[derive(Clone, Copy)]
pub(super) struct Segment {
    pub(super) x: usize,
    pub(super) y: usize,
    pub(super) lane: usize,
    pub(super) count: usize,
}

/// The segments of `start..end` in raster order, with `columns` in a row.
pub(super) fn segments(start: usize, end: usize, columns: usize) -> impl Iterator<Item = Segment> + Clone {
    let mut next = start;
    std::iter::from_fn(move || {
        let (y, x) = (next / columns, next % columns);
        let count = (columns - x).min(end - next);
        let segment = Segment { x, y, lane: next - start, count };
        next += count;
        (count > 0).then_some(segment)
    })
}

impl Window {
    /// The buffers of one row that [`gather`](Self::gather) needs, for an image of `width` over which the window takes
    /// `columns` positions a row.
    pub(super) fn row<'a>(&self, buffer: &'a mut Vec<f32>, [width, columns]: [usize; 2]) -> [&'a mut [f32]; 2] {
        let seen = (columns - 1) * self.step + self.side;
        let len = seen.max(width + self.padding).next_multiple_of(self.step);
        let both = at_least(buffer, 2 * len);
        both.fill(0.0);
        both.split_at_mut(len).into()
    }

    /// Copies what each pixel of the window sees of one channel into a segment's lanes: `lanes[row][column][lane]`.
    #[inline(always)]
    pub(super) fn gather(
        &self,
        pixels: &[f32],
        width: usize,
        segment: Segment,
        [padded, sorted]: &mut [&mut [f32]; 2],
        lanes: &mut [f32],
    ) {
        let Segment { x, y, lane, count } = segment;
        for (i, lanes) in lanes.chunks_exact_mut(self.side * self.lanes).enumerate() {
            let source = (self.step * y + i).checked_sub(self.padding);
            let Some(source) = source.and_then(|y| pixels.get(y * width..(y + 1) * width)) else {
                for lanes in lanes.chunks_exact_mut(self.lanes) {
                    lanes[lane..lane + count].fill(0.0);
                }
                continue;
            };
            padded[self.padding..self.padding + width].copy_from_slice(source);
            // Every step-th pixel put together, once a row: what one column of the window sees is then in one piece.
            let len = padded.len() / self.step;
            match self.step {
                2 => sort::<2>(padded, sorted),
                4 => sort::<4>(padded, sorted),
                step => {
                    for (i, &pixel) in padded.iter().enumerate() {
                        sorted[i % step * len + i / step] = pixel;
                    }
                }
            }
            for (j, lanes) in lanes.chunks_exact_mut(self.lanes).enumerate() {
                let first = j % self.step * len + j / self.step + x;
                lanes[lane..lane + count].copy_from_slice(&sorted[first..first + count]);
            }
        }
    }
}

/// `sorted[i % STEP][i / STEP] = row[i]`: a step known to the compiler becomes shuffles of vectors.
#[inline(always)]
fn sort<const STEP: usize>(row: &[f32], sorted: &mut [f32]) {
    for (j, sorted) in sorted.chunks_exact_mut(row.len() / STEP).enumerate() {
        for (value, pixels) in sorted.iter_mut().zip(row.as_chunks::<STEP>().0) {
            *value = pixels[j];
        }
    }
}
