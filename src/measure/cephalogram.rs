//! The eight analyses of the ISBI 2015 challenge (Wang et al., Medical Image Analysis 31, 2016, table 2).

use super::{Absent, Measure, Unit, Vector};
use crate::geometry::Point;

/// `points` on square pixels, in millimetres where `scaled`.
pub(super) fn measure(points: &[Point], scaled: bool) -> Vec<Measure> {
    let points: &[Point; 19] = points.try_into().expect("19 landmarks");
    // The definitions are of a face that looks to the right; one that looks to the left is mirrored.
    let right = points[2].x >= points[3].x;
    let points = points.map(|p| if right { p } else { Point::new(-p.x, p.y) });
    // Counted from 1, as the challenge does.
    let v = |from: usize, to: usize| Vector::between(points[from - 1], points[to - 1]);
    let degrees = |name, value| of(name, Unit::Degrees, value);

    let sna = v(2, 1).angle(v(2, 5));
    let snb = v(2, 1).angle(v(2, 6));
    let anb = sna.and_then(|sna| Ok(sna - snb?));
    let palate = v(4, 3).angle(v(17, 18)).map(|angle| angle.copysign(v(4, 3).cross(v(17, 18))));
    let odi = v(5, 6).angle(v(10, 8)).and_then(|angle| Ok(angle + palate?));
    let profile = v(2, 7).angle(v(5, 6)).map(|angle| angle.copysign(-v(2, 7).cross(v(5, 6))));
    let apdi = v(3, 4).angle(v(2, 7)).and_then(|angle| Ok(angle + profile? + palate?));
    let anterior = v(2, 8).length();
    let fhi = if anterior > 0.0 { Ok(v(1, 10).length() / anterior) } else { Err(Absent::Degenerate) };
    let fha = v(1, 2).angle(v(10, 9));
    let overjet = v(11, 12);
    let mw = if scaled { Ok(overjet.length().copysign(overjet.x)) } else { Err(Absent::NoScale) };

    vec![
        degrees("SNA", sna),
        degrees("SNB", snb),
        degrees("ANB", anb),
        degrees("ODI", odi),
        degrees("APDI", apdi),
        of("FHI", Unit::Ratio, fhi),
        degrees("FHA", fha),
        of("MW", Unit::Millimetres, mw),
    ]
}

const fn of(name: &'static str, unit: Unit, value: Result<f64, Absent>) -> Measure {
    Measure { name, unit, value, vertebrae: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A made-up face that looks to the right: S at the origin, lines at round angles.
    fn face() -> [Point; 19] {
        let mut points = [Point::new(1.0, 1.0); 19];
        let at = |from: Point, degrees: f64, length: f64| {
            let (sin, cos) = degrees.to_radians().sin_cos();
            Point::new(from.x + length * cos, from.y + length * sin)
        };
        let (sella, nasion) = (Point::new(0.0, 0.0), Point::new(70.0, 0.0));
        points[0] = sella;
        points[1] = nasion;
        // Frankfort plane: level. Palate: 5 degrees down to the front.
        points[3] = Point::new(-20.0, 25.0);
        points[2] = Point::new(60.0, 25.0);
        points[16] = Point::new(20.0, 50.0);
        points[17] = at(points[16], 5.0, 50.0);
        // From nasion, against the line to sella (180 degrees): A at 82, B at 79, pogonion at 80.
        points[4] = at(nasion, 180.0 - 82.0, 55.0);
        points[5] = at(nasion, 180.0 - 79.0, 90.0);
        points[6] = at(nasion, 180.0 - 80.0, 105.0);
        points[7] = Point::new(45.0, 115.0);
        points[9] = Point::new(-10.0, 75.0);
        points[8] = at(points[9], 30.0, 60.0);
        points[10] = Point::new(66.0, 80.0);
        points[11] = Point::new(69.0, 84.0);
        points
    }

    fn value(measures: &[Measure], name: &str) -> f64 {
        measures.iter().find(|m| m.name == name).expect("a measure").value.expect("a value")
    }

    #[test]
    fn a_face_with_round_angles_has_them() {
        let measures = measure(&face(), true);
        let names: Vec<&str> = measures.iter().map(|m| m.name).collect();
        assert_eq!(names, ["SNA", "SNB", "ANB", "ODI", "APDI", "FHI", "FHA", "MW"]);
        let points = face();
        let direction = |from: usize, to: usize| {
            let v = Vector::between(points[from - 1], points[to - 1]);
            v.y.atan2(v.x).to_degrees()
        };
        for (name, expected) in [
            ("SNA", 82.0),
            ("SNB", 79.0),
            ("ANB", 3.0),
            // As angles of directions on the page, worked out apart from the code above.
            ("ODI", direction(5, 6) - direction(10, 8) + 5.0),
            ("APDI", (180.0 - 100.0) - (direction(5, 6) - 100.0) + 5.0),
            ("FHI", 75.0_f64.hypot(10.0) / 115.0_f64.hypot(25.0)),
            ("FHA", 30.0),
            ("MW", 5.0),
        ] {
            let found = value(&measures, name);
            assert!((found - expected).abs() < 1e-9, "{name}: {found}, {expected} was expected");
        }
    }

    #[test]
    fn a_face_that_looks_to_the_left_has_the_same_measures() {
        let mirrored = face().map(|p| Point::new(500.0 - p.x, p.y));
        for (left, right) in measure(&mirrored, true).iter().zip(measure(&face(), true)) {
            let (left, right) = (left.value.expect("a value"), right.value.expect("a value"));
            assert!((left - right).abs() < 1e-9);
        }
    }

    #[test]
    fn without_a_scale_there_are_no_millimetres_and_everything_else() {
        let measures = measure(&face(), false);
        assert_eq!(measures[7].value, Err(Absent::NoScale));
        assert!(measures[..7].iter().all(|m| m.value.is_ok()));
    }

    #[test]
    fn a_crossbite_is_negative() {
        let mut points = face();
        points[11] = Point::new(63.0, 84.0);
        let measures = measure(&points, true);
        assert!((value(&measures, "MW") + 5.0).abs() < 1e-9);
    }

    #[test]
    fn coinciding_landmarks_are_said() {
        let mut points = face();
        points[0] = points[1];
        let measures = measure(&points, true);
        let absent: Vec<&str> =
            measures.iter().filter(|m| m.value == Err(Absent::Degenerate)).map(|m| m.name).collect();
        assert_eq!(absent, ["SNA", "SNB", "ANB", "FHA"]);
    }
}
