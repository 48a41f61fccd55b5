//! The order of a spine's landmarks: vertebrae from top to bottom, in each the corners top left, top right, bottom
//! left, bottom right.
//!
//! The upper two of four corners are not always the top edge: where a vertebra is tilted by more than its diagonal, its
//! lower top corner lies below its higher bottom corner. So the corners are taken in turn around their centre, and the
//! top is the edge that faces up the spine, from the neighbours below to those above.

use crate::geometry::Point;

/// The side of a vertebra that counts as none, as a share of the film's median height.
const FLAT: f64 = 0.1;
/// The height that no vertebra of a film reaches, as a multiple of its median height.
const TALL: f64 = 3.0;
/// Two neighbours whose centres are nearer than this share of their height are the same bone.
const DOUBLED: f64 = 0.45;
/// How much longer than the side opposite to it a side of a vertebra put in order may be.
const SKEWED: f64 = 2.0;

/// Why no order makes a spine of a film's landmarks; vertebrae are counted from the top from 1.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum Disorder {
    #[error("the corners of vertebra {0} enclose no vertebra, in whatever order")]
    NoVertebra(usize),
    #[error("vertebra {0} has no height")]
    Flat(usize),
    #[error("vertebra {0} is more than three times as high as most: its corners belong to different vertebrae")]
    Tall(usize),
    #[error("vertebrae {0} and {next} lie on each other: one was marked twice", next = .0 + 1)]
    Doubled(usize),
}

/// The points in order, and whether that changed anything.
///
/// # Panics
/// When the points are not four to a vertebra.
pub(super) fn in_order(points: &[Point]) -> Result<(Vec<Point>, bool), Disorder> {
    let (given, []) = points.as_chunks::<4>() else { panic!("{} points: not four to a vertebra", points.len()) };
    let mut vertebrae = given.to_vec();
    vertebrae.sort_by(|a, b| centre(a).y.total_cmp(&centre(b).y));
    let centres: Vec<Point> = vertebrae.iter().map(centre).collect();
    for (i, corners) in vertebrae.iter_mut().enumerate() {
        // Over two neighbours on either side: one of them may itself be misplaced.
        let [above, below] = [centres[i.saturating_sub(2)], centres[(i + 2).min(centres.len() - 1)]];
        let ordered = turned(corners, between(above, below));
        // A corner marked in the wrong place also looks like one out of order, but leaves an unlikely vertebra.
        if !is_convex(&ordered) || (ordered != *corners && is_skewed(&ordered)) {
            return Err(Disorder::NoVertebra(i + 1));
        }
        *corners = ordered;
    }
    check(&vertebrae)?;
    let changed = vertebrae != given;
    Ok((vertebrae.into_iter().flatten().collect(), changed))
}

/// Whether going around it, clockwise, turns right at every corner.
fn is_convex([tl, tr, bl, br]: &[Point; 4]) -> bool {
    let around = [*tl, *tr, *br, *bl];
    (0..4).all(|i| {
        let [a, b, c] = [0, 1, 2].map(|step| around[(i + step) % 4]);
        let ([ax, ay], [bx, by]) = (between(a, b), between(b, c));
        ax * by - ay * bx > 0.0
    })
}

/// Of the four ways to call the corners that follow each other clockwise, the one that faces up the spine most.
fn turned(corners: &[Point; 4], down: [f64; 2]) -> [Point; 4] {
    let middle = centre(corners);
    let mut around = *corners;
    around.sort_by(|a, b| {
        let [a, b] = [*a, *b].map(|corner| (corner.y - middle.y).atan2(corner.x - middle.x));
        a.total_cmp(&b)
    });
    let right = [down[1], -down[0]];
    let facing = |[tl, tr, bl, br]: &[Point; 4]| {
        cosine(between(tl.midpoint(*tr), bl.midpoint(*br)), down)
            + cosine(between(tl.midpoint(*bl), tr.midpoint(*br)), right)
    };
    let ways = [0, 1, 2, 3].map(|first| {
        let [tl, tr, br, bl] = [0, 1, 2, 3].map(|step| around[(first + step) % 4]);
        [tl, tr, bl, br]
    });
    ways.into_iter().max_by(|a, b| facing(a).total_cmp(&facing(b))).expect("there are four ways")
}

fn is_skewed([tl, tr, bl, br]: &[Point; 4]) -> bool {
    let skewed = |a: f64, b: f64| a.max(b) > SKEWED * a.min(b);
    skewed(tl.distance(*tr), bl.distance(*br)) || skewed(tl.distance(*bl), tr.distance(*br))
}

/// What an order cannot mend, told from the film's other vertebrae.
fn check(vertebrae: &[[Point; 4]]) -> Result<(), Disorder> {
    let heights: Vec<f64> = vertebrae.iter().map(height).collect();
    let mut sorted = heights.clone();
    sorted.sort_by(f64::total_cmp);
    let median = sorted[sorted.len() / 2];
    for (i, &height) in heights.iter().enumerate() {
        if height < FLAT * median {
            return Err(Disorder::Flat(i + 1));
        }
        if height > TALL * median {
            return Err(Disorder::Tall(i + 1));
        }
    }
    for (i, (pair, heights)) in vertebrae.windows(2).zip(heights.windows(2)).enumerate() {
        if centre(&pair[0]).distance(centre(&pair[1])) < DOUBLED * (heights[0] + heights[1]) / 2.0 {
            return Err(Disorder::Doubled(i + 1));
        }
    }
    Ok(())
}

/// The area over the mean of top and bottom, so that a shifted bottom makes no vertebra higher.
fn height([tl, tr, bl, br]: &[Point; 4]) -> f64 {
    let ([ax, ay], [bx, by]) = (between(*tl, *br), between(*tr, *bl));
    (ax * by - ay * bx) / (tl.distance(*tr) + bl.distance(*br))
}

fn centre([a, b, c, d]: &[Point; 4]) -> Point {
    a.midpoint(*b).midpoint(c.midpoint(*d))
}

fn between(from: Point, to: Point) -> [f64; 2] {
    [to.x - from.x, to.y - from.y]
}

/// Of the angle between two directions; 0 where one has no length.
fn cosine(a: [f64; 2], b: [f64; 2]) -> f64 {
    let length = a[0].hypot(a[1]) * b[0].hypot(b[1]);
    if length == 0.0 { 0.0 } else { (a[0] * b[0] + a[1] * b[1]) / length }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Five vertebrae 100 wide and 40 high, one below the other along a spine that leans by `degrees`.
    fn spine(degrees: f64) -> Vec<Point> {
        let (sin, cos) = f64::to_radians(degrees).sin_cos();
        let place = |x: f64, y: f64| Point::new(500.0 + x * cos - y * sin, 500.0 + x * sin + y * cos);
        let corners = |i: u32| {
            let y = 60.0 * f64::from(i);
            [place(-50.0, y), place(50.0, y), place(-50.0, y + 40.0), place(50.0, y + 40.0)]
        };
        (0..5).flat_map(corners).collect()
    }

    fn corners(points: &mut [Point], vertebra: usize) -> &mut [Point] {
        &mut points[4 * vertebra..][..4]
    }

    #[test]
    fn a_strongly_tilted_spine_in_order_stays_as_it_is() {
        // The diagonal of these vertebrae lies at 22 degrees: beyond it, height alone would pair the wrong corners.
        for degrees in [-60.0, -45.0, -25.0, 0.0, 25.0, 45.0, 60.0] {
            let points = spine(degrees);
            assert_eq!(in_order(&points), Ok((points, false)), "{degrees} degrees");
        }
    }

    #[test]
    fn every_order_of_a_vertebras_corners_is_mended() {
        for degrees in [-60.0, -40.0, -20.0, 0.0, 20.0, 40.0, 60.0] {
            for vertebra in 0..5 {
                for (a, b, c) in (0..4).flat_map(|a| (0..4).flat_map(move |b| (0..4).map(move |c| (a, b, c)))) {
                    let whole = spine(degrees);
                    let mut points = whole.clone();
                    // Three exchanges reach each of the 24 orders.
                    for (i, j) in [(0, a), (1, b), (2, c)] {
                        corners(&mut points, vertebra).swap(i, j);
                    }
                    let changed = points != whole;
                    assert_eq!(in_order(&points), Ok((whole, changed)), "{degrees} degrees, {vertebra}, {a} {b} {c}");
                }
            }
        }
    }

    #[test]
    fn a_vertebra_given_last_finds_its_place() {
        let whole = spine(30.0);
        let mut points = whole.clone();
        points.rotate_left(4);
        assert_eq!(in_order(&points), Ok((whole, true)));
    }

    #[test]
    fn what_no_order_mends_is_said() {
        // Two corners of the second vertebra are one place.
        let mut points = spine(10.0);
        points[7] = points[6];
        assert_eq!(in_order(&points), Err(Disorder::NoVertebra(2)));
        // Its top left corner was marked below the bottom left one.
        let mut points = spine(0.0);
        points[4].y = points[6].y + 15.0;
        assert_eq!(in_order(&points), Err(Disorder::NoVertebra(2)));
        let mut points = spine(0.0);
        points[6].y -= 38.0;
        points[7].y -= 38.0;
        assert_eq!(in_order(&points), Err(Disorder::Flat(2)));
        let mut points = spine(0.0);
        points[18].y += 100.0;
        points[19].y += 100.0;
        assert_eq!(in_order(&points), Err(Disorder::Tall(5)));
        let mut points = spine(0.0);
        for corner in corners(&mut points, 3) {
            corner.y -= 58.0;
        }
        let error = in_order(&points).expect_err("the third vertebra stands there twice");
        assert_eq!(error.to_string(), "vertebrae 3 and 4 lie on each other: one was marked twice");
    }
}
