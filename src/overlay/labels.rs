//! Where names stand: beside their landmark, on the picture, and never on each other. Pure.
//!
//! Every label tries places on rings around its landmark and takes the cheapest, the most crowded first; then all
//! choose again a few times, knowing where the others are. Two labels that touch are ruled out; a long leader, a
//! covered landmark and crossing leaders cost.

use std::f64::consts::TAU;

use crate::geometry::Point;

/// Distances of a label's near edge from its landmark, in picture pixels, where the landmark wants 6 of them clear.
const RINGS: [f64; 14] = [9.0, 14.0, 20.0, 28.0, 38.0, 50.0, 65.0, 85.0, 110.0, 140.0, 180.0, 230.0, 300.0, 400.0];
const DIRECTIONS: u32 = 24;
/// A name that is not farther than this from what its landmark wants clear explains itself without a leader.
const LEADER_FROM: f64 = 9.0;
/// Free space kept around every label.
const GAP: f64 = 3.0;
/// Landmarks nearer than this crowd each other.
const NEIGHBOURHOOD: f64 = 120.0;
/// How often all labels choose again.
const SWEEPS: usize = 4;

const COST_COVERED_LANDMARK: f64 = 60.0;
const COST_LEADER_THROUGH_LABEL: f64 = 90.0;
const COST_CROSSED_LEADER: f64 = 50.0;
const COST_LEADER_OVER_LANDMARK: f64 = 30.0;
/// Names stand on the side of their dot that the others leave free, the right one if both are.
const COST_OTHER_SIDE: f64 = 6.0;

/// A landmark and the size of its name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Anchor {
    /// In picture pixels.
    pub(super) point: Point,
    /// Radius around the landmark that names should leave free.
    pub(super) clear: f64,
    /// Of the name.
    pub(super) width: f64,
    /// Of the name.
    pub(super) height: f64,
}

/// A rectangle in picture pixels, by its top left corner.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rect {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// Where a name goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Label {
    /// The name's box.
    pub(super) rect: Rect,
    /// The end of the line that leads from the landmark to the name, where there is one.
    pub(super) leader: Option<Point>,
}

/// A place for each name, in the order of `anchors`; `None` where there is no room left in `area`.
pub(super) fn place(anchors: &[Anchor], area: Rect) -> Vec<Option<Label>> {
    let neighbours = |p: Point| anchors.iter().filter(move |other| p.distance(other.point) < NEIGHBOURHOOD);
    let mut order: Vec<usize> = (0..anchors.len()).collect();
    order.sort_by_cached_key(|&i| std::cmp::Reverse(neighbours(anchors[i].point).count()));
    let sides: Vec<f64> = anchors
        .iter()
        .map(|a| if neighbours(a.point).map(|b| b.point.x - a.point.x).sum::<f64>() > 1.0 { -1.0 } else { 1.0 })
        .collect();

    let mut labels = vec![None; anchors.len()];
    for _ in 0..=SWEEPS {
        for &i in &order {
            labels[i] = None;
            labels[i] = best(i, sides[i], anchors, &labels, area);
        }
    }
    labels
}

fn best(i: usize, side: f64, anchors: &[Anchor], labels: &[Option<Label>], area: Rect) -> Option<Label> {
    let mut best: Option<(f64, Label)> = None;
    for ring in RINGS {
        // A ring costs its radius at least, so no farther one can win any more.
        if best.is_some_and(|(cost, _)| cost <= ring) {
            break;
        }
        for direction in 0..DIRECTIONS {
            let (sin, cos) = (TAU * f64::from(direction) / f64::from(DIRECTIONS)).sin_cos();
            let label = candidate(&anchors[i], ring, cos, sin);
            if let Some(cost) = cost(i, &label, anchors, labels, area) {
                let cost = cost + ring + COST_OTHER_SIDE * (1.0 - side * cos);
                if best.is_none_or(|(lowest, _)| cost < lowest) {
                    best = Some((cost, label));
                }
            }
        }
    }
    best.map(|(_, label)| label)
}

fn candidate(anchor: &Anchor, ring: f64, cos: f64, sin: f64) -> Label {
    let Anchor { point, clear, width, height } = *anchor;
    let ring = ring + clear - 6.0;
    let x = point.x + cos * (ring + width / 2.0) - width / 2.0;
    let y = point.y + sin * (ring + height / 2.0) - height / 2.0;
    let rect = Rect { x: x.round(), y: y.round(), width, height };
    let end = rect.grown(2.0).nearest(point);
    Label { rect, leader: (point.distance(end) >= clear + LEADER_FROM).then_some(end) }
}

/// What a place costs besides its distance; `None` where it touches another label or its own landmark, or leaves the
/// area.
fn cost(i: usize, label: &Label, anchors: &[Anchor], labels: &[Option<Label>], area: Rect) -> Option<f64> {
    if !area.contains(&label.rect) {
        return None;
    }
    let own = anchors[i].point;
    if label.rect.nearest(own).distance(own) < anchors[i].clear + 1.0 {
        return None;
    }
    let mut cost = 0.0;
    for (anchor, other) in std::iter::zip(anchors, labels) {
        let near = label.rect.nearest(anchor.point).distance(anchor.point);
        if near < anchor.clear && anchor.point != own {
            cost += COST_COVERED_LANDMARK * (1.0 - 0.5 * near / anchor.clear);
        }
        if let Some(end) = label.leader
            && anchor.point != own
            && distance_to_line(anchor.point, own, end) < 6.0
        {
            cost += COST_LEADER_OVER_LANDMARK;
        }
        let Some(other) = other else { continue };
        if label.rect.grown(GAP).overlaps(&other.rect) {
            return None;
        }
        if label.leader.is_some_and(|end| other.rect.grown(1.0).is_crossed(own, end)) {
            cost += COST_LEADER_THROUGH_LABEL;
        }
        if let Some(end) = other.leader {
            if label.rect.grown(1.0).is_crossed(anchor.point, end) {
                cost += COST_LEADER_THROUGH_LABEL;
            }
            if label.leader.is_some_and(|mine| segments_cross(own, mine, anchor.point, end)) {
                cost += COST_CROSSED_LEADER;
            }
        }
    }
    Some(cost)
}

impl Rect {
    fn grown(self, by: f64) -> Self {
        Self { x: self.x - by, y: self.y - by, width: self.width + 2.0 * by, height: self.height + 2.0 * by }
    }

    fn contains(&self, other: &Self) -> bool {
        other.x >= self.x
            && other.y >= self.y
            && other.x + other.width <= self.x + self.width
            && other.y + other.height <= self.y + self.height
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.x < other.x + other.width
            && other.x < self.x + self.width
            && self.y < other.y + other.height
            && other.y < self.y + self.height
    }

    fn nearest(&self, p: Point) -> Point {
        Point::new(p.x.max(self.x).min(self.x + self.width), p.y.max(self.y).min(self.y + self.height))
    }

    fn is_crossed(&self, a: Point, b: Point) -> bool {
        let (right, bottom) = (self.x + self.width, self.y + self.height);
        let corners =
            [(self.x, self.y), (right, self.y), (right, bottom), (self.x, bottom)].map(|(x, y)| Point { x, y });
        let holds = |p: Point| self.nearest(p) == p;
        holds(a) || holds(b) || (0..4).any(|k| segments_cross(a, b, corners[k], corners[(k + 1) % 4]))
    }
}

fn segments_cross(a: Point, b: Point, c: Point, d: Point) -> bool {
    let side = |p: Point, q: Point, r: Point| (q.x - p.x) * (r.y - p.y) - (q.y - p.y) * (r.x - p.x);
    side(a, b, c) * side(a, b, d) < 0.0 && side(c, d, a) * side(c, d, b) < 0.0
}

fn distance_to_line(p: Point, a: Point, b: Point) -> f64 {
    let (dx, dy) = (b.x - a.x, b.y - a.y);
    let t = (((p.x - a.x) * dx + (p.y - a.y) * dy) / (dx * dx + dy * dy).max(1e-9)).clamp(0.0, 1.0);
    p.distance(Point::new(a.x + t * dx, a.y + t * dy))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AREA: Rect = Rect { x: 0.0, y: 40.0, width: 1160.0, height: 1440.0 };

    fn anchor(x: f64, y: f64, width: f64) -> Anchor {
        Anchor { point: Point::new(x, y), clear: 8.0, width, height: 15.0 }
    }

    #[test]
    fn a_lonely_name_stands_right_of_its_dot_without_a_leader() {
        let label = place(&[anchor(500.0, 500.0, 100.0)], AREA)[0].expect("there is room");
        assert_eq!(label, Label { rect: Rect { x: 511.0, y: 493.0, width: 100.0, height: 15.0 }, leader: None });
    }

    #[test]
    fn at_the_right_border_a_name_moves_away_from_it_and_stays_beside_its_dot() {
        let label = place(&[anchor(1150.0, 500.0, 100.0)], AREA)[0].expect("there is room");
        assert!(label.rect.x + label.rect.width <= 1160.0);
        assert_eq!(label.leader, None);
    }

    #[test]
    fn the_corners_of_seventeen_vertebrae_are_all_named() {
        let anchors: Vec<_> =
            (0..68).map(|i| anchor(560.0 + 50.0 * f64::from(i % 2), 90.0 + 40.0 * f64::from(i / 2), 84.0)).collect();
        let labels = place(&anchors, AREA);
        assert!(labels.iter().all(Option::is_some), "{} without", labels.iter().filter(|l| l.is_none()).count());
    }

    #[test]
    fn without_room_a_name_is_left_out() {
        let small = Rect { x: 0.0, y: 0.0, width: 60.0, height: 400.0 };
        assert_eq!(place(&[anchor(30.0, 30.0, 100.0)], small), [None]);
    }

    #[test]
    fn crossings_are_seen() {
        let p = Point::new;
        assert!(segments_cross(p(0.0, 0.0), p(2.0, 2.0), p(0.0, 2.0), p(2.0, 0.0)));
        assert!(!segments_cross(p(0.0, 0.0), p(2.0, 2.0), p(3.0, 2.0), p(5.0, 0.0)));
        let rect = Rect { x: 1.0, y: 1.0, width: 2.0, height: 2.0 };
        assert!(rect.is_crossed(p(0.0, 2.0), p(9.0, 2.0)));
        assert!(rect.is_crossed(p(2.0, 2.0), p(9.0, 9.0)));
        assert!(!rect.is_crossed(p(0.0, 0.0), p(0.0, 9.0)));
    }

    proptest! {
        #[test]
        fn names_never_touch_each_other_nor_leave_the_picture(
            points in proptest::collection::vec((-50.0..1210.0, 0.0..1500.0, 20.0..260.0), 1..40),
        ) {
            let anchors: Vec<_> = points.into_iter().map(|(x, y, w)| anchor(x, y, w)).collect();
            let labels = place(&anchors, AREA);
            let placed: Vec<_> = labels.iter().flatten().collect();
            for (i, a) in placed.iter().enumerate() {
                prop_assert!(AREA.contains(&a.rect));
                for b in &placed[i + 1..] {
                    prop_assert!(!a.rect.overlaps(&b.rect), "{a:?} {b:?}");
                }
            }
        }
    }
}
