//! What is wrong with a data set, before a night is spent on it.

use std::fmt;
use std::fs;

use image::{Rgb, RgbImage};
use rayon::prelude::*;

use super::atlas::{aligned, mean_shape};
use super::datasets::{Dataset, LabelledFilm, Reading};
use crate::geometry::{Point, Size};
use crate::radiograph::{Limits, Radiograph, decode};

/// Sides of a film's picture on the contact sheet, and how many stand in a row.
const THUMBNAIL: Size = Size::new(160, 200);
const SHEET_COLUMNS: usize = 12;
/// A hash compares neighbouring cells of a grid of this many rows, and one more column.
const HASH_ROWS: usize = 16;
/// So many shapes are needed to say what is usual.
const FEWEST_SHAPES: usize = 10;
/// A shape that lies this many times as far from the mean as the median one is looked at more closely,
const SUSPECT: f64 = 2.0;
/// has two landmarks exchanged where that leaves at most this share of its distance,
const EXCHANGED: f64 = 0.5;
/// and is pointed out as it is where it lies this many times as far.
const UNLIKE: f64 = 4.0;
/// Films whose hashes differ in at most this many of 256 bits look alike.
const ALIKE_BITS: u32 = 12;

/// What was found.
#[derive(Debug)]
pub struct Findings {
    /// Number of films.
    pub films: usize,
    /// Number of landmarks on each.
    pub landmarks: usize,
    /// Number of groups (patients, cases) that a split keeps together.
    pub groups: usize,
    /// Of the films that could be decoded: smallest and largest columns and rows.
    pub sizes: Option<[Size; 2]>,
    /// Films whose scale the data set says.
    pub scaled: usize,
    /// The other parts of the set, and how many films each has.
    pub others: Vec<(String, usize)>,
    /// What the reader mended or left out; before that of another part stands the part's name.
    pub notes: Vec<String>,
    /// What must be mended, a sentence each; before that of another part stands the part's name.
    pub faults: Vec<String>,
    /// Pairs of films of different groups, or of different parts of the set, that look alike.
    pub alike: Vec<[String; 2]>,
    /// Films whose labels are unlike those of the others, a sentence each.
    pub odd: Vec<String>,
    /// Every film of every part that could be decoded, small, with its landmarks.
    pub sheet: RgbImage,
}

/// Decodes every film of a data set and looks at films and labels; `done` is called after each film.
///
/// `others` are other parts of the set, by name. Their films are looked at too, and compared with each other and with
/// those that are trained on, so that a test set holds nothing that was learnt and nothing twice.
pub fn check(reading: &Reading, others: &[(String, Reading)], done: impl Fn() + Sync) -> Findings {
    let dataset = &reading.dataset;
    let (own, mut faults) = looks(reading, &done);
    let mut notes = dataset.notes.clone();
    let mut odd = odd_labels(&dataset.films, &dataset.landmarks);
    let mut looks: Vec<(&str, &LabelledFilm, Look)> = own.into_iter().map(|(film, look)| ("", film, look)).collect();
    for (part, other) in others {
        let (theirs, their_faults) = self::looks(other, &done);
        // What is said of a file that the parts share was said already.
        let told = |lines: Vec<String>, known: &[String]| -> Vec<String> {
            let new = lines.into_iter().filter(|line| !known.contains(line));
            new.map(|line| format!("{part}: {line}")).collect()
        };
        faults.extend(told(their_faults, &faults));
        notes.extend(told(other.dataset.notes.clone(), &dataset.notes));
        odd.extend(odd_labels(&other.dataset.films, &other.dataset.landmarks));
        looks.extend(theirs.into_iter().map(|(film, look)| (part.as_str(), film, look)));
    }
    let mut groups: Vec<&str> = dataset.films.iter().map(|film| film.group.as_str()).collect();
    groups.sort_unstable();
    groups.dedup();
    let side = |pick: fn(u32, u32) -> u32| {
        looks
            .iter()
            .filter(|(part, ..)| part.is_empty())
            .map(|(.., look)| look.size)
            .reduce(|a, b| Size::new(pick(a.width, b.width), pick(a.height, b.height)))
    };
    let (alike, together) = alike(&looks);
    notes.extend(together.into_iter().map(|[a, b]| format!("{a} and {b} look alike and are of one group")));
    Findings {
        films: dataset.films.len(),
        landmarks: dataset.landmarks.len(),
        groups: groups.len(),
        sizes: side(u32::min).zip(side(u32::max)).map(|(least, most)| [least, most]),
        scaled: dataset.films.iter().filter(|film| film.mm_per_px.is_some()).count(),
        others: others.iter().map(|(part, other)| (part.clone(), other.dataset.films.len())).collect(),
        notes,
        faults,
        alike,
        odd,
        sheet: sheet(&looks),
    }
}

/// What is kept of a film.
struct Look {
    size: Size,
    hash: [u16; HASH_ROWS],
    thumbnail: RgbImage,
}

/// Every film that can be decoded, and all that is wrong with films and labels.
fn looks<'a>(reading: &'a Reading, done: &(impl Fn() + Sync)) -> (Vec<(&'a LabelledFilm, Look)>, Vec<String>) {
    let Reading { dataset: Dataset { landmarks, films, .. }, faults } = reading;
    let look = |film| {
        let look = look(film);
        done();
        look
    };
    let looked: Vec<Result<Look, String>> = films.par_iter().map(look).collect();
    let mut faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let mut looks = Vec::new();
    for (film, look) in films.iter().zip(looked) {
        match look {
            Ok(look) => {
                faults.extend(outside(film, look.size, landmarks));
                looks.push((film, look));
            }
            Err(reason) => faults.push(reason),
        }
    }
    (looks, faults)
}

fn look(film: &LabelledFilm) -> Result<Look, String> {
    let at = |reason: String| format!("{}: {reason}", film.path.display());
    let bytes = fs::read(&film.path).map_err(|e| at(e.to_string()))?;
    let radiograph = decode(&bytes, &Limits::default()).map_err(|e| at(e.to_string()))?;
    Ok(Look { size: radiograph.size, hash: hash(&radiograph), thumbnail: thumbnail(&radiograph, film) })
}

fn outside(film: &LabelledFilm, size: Size, names: &[String]) -> Vec<String> {
    let labels = film.landmarks.iter().zip(&film.visible).zip(names).enumerate();
    labels
        .filter(|(_, ((point, visible), _))| **visible && !size.contains(**point))
        .map(|(k, ((point, _), name))| {
            let (path, Point { x, y }, place) = (film.path.display(), *point, labelled_in(film, &[k]));
            format!("{path}: {name} at ({x}, {y}) is not on the film of {size}{place}")
        })
        .collect()
}

/// Where these landmarks of a film stand, in brackets; nothing where that is not known.
fn labelled_in(film: &LabelledFilm, landmarks: &[usize]) -> String {
    film.labels.of(landmarks).map(|place| format!(" (labelled in {place})")).unwrap_or_default()
}

/// The mean gray value of each cell of a grid.
fn cells(radiograph: &Radiograph, [columns, rows]: [usize; 2]) -> Vec<f64> {
    let Size { width, height } = radiograph.size;
    let (width, height) = (width as usize, height as usize);
    let span = |i: usize, of: usize, n: usize| i * of / n..((i + 1) * of / n).max(i * of / n + 1).min(of);
    let mean = |row: usize, column: usize| {
        let (ys, xs) = (span(row, height, rows), span(column, width, columns));
        let n = ys.len() * xs.len();
        let sum: f64 =
            ys.flat_map(|y| radiograph.pixels[y * width..][xs.clone()].iter()).map(|&gray| f64::from(gray)).sum();
        sum / n.max(1) as f64
    };
    (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))).map(|(r, c)| mean(r, c)).collect()
}

/// The difference hash: whether each cell is brighter than its left neighbour.
fn hash(radiograph: &Radiograph) -> [u16; HASH_ROWS] {
    let cells = cells(radiograph, [HASH_ROWS + 1, HASH_ROWS]);
    let row = |row: usize| {
        let cells = &cells[row * (HASH_ROWS + 1)..][..HASH_ROWS + 1];
        cells.windows(2).fold(0, |bits, pair| bits << 1 | u16::from(pair[1] > pair[0]))
    };
    std::array::from_fn(row)
}

/// Pairs that look alike: those of different groups or parts, and those of one group. Each film has the name of its part,
/// which is empty for those that are trained on.
fn alike(looks: &[(&str, &LabelledFilm, Look)]) -> (Vec<[String; 2]>, Vec<[String; 2]>) {
    let near = |a: [u16; HASH_ROWS], b: [u16; HASH_ROWS]| {
        std::iter::zip(a, b).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>() <= ALIKE_BITS
    };
    let name = |part: &str, film: &LabelledFilm| {
        if part.is_empty() { film.name.clone() } else { format!("{part}/{}", film.name) }
    };
    let (mut apart, mut together) = (Vec::new(), Vec::new());
    for (i, (part, film, look)) in looks.iter().enumerate() {
        for (other, second, theirs) in &looks[i + 1..] {
            if near(look.hash, theirs.hash) {
                // A group of one part is none of another, whatever it is called.
                let of_one_group = part == other && film.group == second.group;
                let pairs = if of_one_group { &mut together } else { &mut apart };
                pairs.push([name(part, film), name(other, second)]);
            }
        }
    }
    (apart, together)
}

/// Landmarks that look exchanged, and films whose shape is far from all others', after every shape was moved, turned
/// and scaled onto the mean one.
fn odd_labels(films: &[LabelledFilm], names: &[String]) -> Vec<String> {
    let whole: Vec<&LabelledFilm> = films.iter().filter(|film| film.visible.iter().all(|&v| v)).collect();
    let shapes: Vec<Vec<Point>> = whole.iter().map(|film| film.landmarks.clone()).collect();
    let Ok(mean) = mean_shape(&shapes) else { return Vec::new() };
    if shapes.len() < FEWEST_SHAPES {
        return Vec::new();
    }
    let distance = |shape: &[Point]| {
        let onto = aligned(shape, &mean);
        onto.iter().zip(&mean).map(|(p, q)| p.distance(*q)).sum::<f64>() / mean.len() as f64
    };
    let distances: Vec<f64> = shapes.iter().map(|shape| distance(shape)).collect();
    let mut sorted = distances.clone();
    sorted.sort_by(f64::total_cmp);
    let usual = sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
    let mut odd = Vec::new();
    for ((film, shape), own) in whole.iter().zip(shapes).zip(distances) {
        if own <= SUSPECT * usual {
            continue;
        }
        let pairs = (0..mean.len()).flat_map(|i| (i + 1..mean.len()).map(move |j| (i, j)));
        let exchanged = pairs.map(|(i, j)| {
            let mut other = shape.clone();
            other.swap(i, j);
            (distance(&other), i, j)
        });
        let (least, i, j) = exchanged.fold((f64::INFINITY, 0, 0), |a, b| if b.0 < a.0 { b } else { a });
        let path = film.path.display();
        if least < EXCHANGED * own {
            let place = labelled_in(film, &[i, j]);
            odd.push(format!("{path}: {} and {} look exchanged{place}", names[i], names[j]));
        } else if own > UNLIKE * usual {
            let (times, place) = (own / usual, labelled_in(film, &[]));
            odd.push(format!("{path}: its landmarks lie {times:.1} times as far from the mean shape as usual{place}"));
        }
    }
    odd
}

fn thumbnail(radiograph: &Radiograph, film: &LabelledFilm) -> RgbImage {
    let Size { width, height } = radiograph.size;
    let scale = (f64::from(THUMBNAIL.width) / f64::from(width)).min(f64::from(THUMBNAIL.height) / f64::from(height));
    let side = |length: u32| ((f64::from(length) * scale) as u32).max(1);
    let (columns, rows) = (side(width), side(height));
    let cells = cells(radiograph, [columns as usize, rows as usize]);
    let mut picture = RgbImage::from_fn(columns, rows, |x, y| {
        let gray = (cells[(y * columns + x) as usize] / 257.0) as u8;
        Rgb([gray; 3])
    });
    for (point, _) in film.landmarks.iter().zip(&film.visible).filter(|(_, visible)| **visible) {
        dot(&mut picture, Point::new(point.x * scale, point.y * scale));
    }
    picture
}

/// A dot of 3 x 3 pixels, as far as it lies on the picture.
fn dot(picture: &mut RgbImage, at: Point) {
    for (dx, dy) in (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (dx, dy))) {
        let (x, y) = (at.x as i64 + dx, at.y as i64 + dy);
        if let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y))
            && let Some(pixel) = picture.get_pixel_mut_checked(x, y)
        {
            *pixel = Rgb([255, 196, 0]);
        }
    }
}

fn sheet(looks: &[(&str, &LabelledFilm, Look)]) -> RgbImage {
    let columns = looks.len().clamp(1, SHEET_COLUMNS) as u32;
    let rows = looks.len().div_ceil(SHEET_COLUMNS).max(1) as u32;
    let mut sheet = RgbImage::new(columns * THUMBNAIL.width, rows * THUMBNAIL.height);
    for (i, (.., look)) in looks.iter().enumerate() {
        let (x, y) = ((i % SHEET_COLUMNS) as u32 * THUMBNAIL.width, (i / SHEET_COLUMNS) as u32 * THUMBNAIL.height);
        image::imageops::replace(&mut sheet, &look.thumbnail, i64::from(x), i64::from(y));
    }
    sheet
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { films, landmarks, groups, sizes, scaled, others, notes, faults, alike, odd, sheet: _ } = self;
        writeln!(f, "{films} films in {groups} groups, {landmarks} landmarks, {scaled} films with a scale")?;
        if let Some([least, most]) = sizes {
            writeln!(f, "{least} to {most} pixels")?;
        }
        for (part, films) in others {
            writeln!(f, "{part}: {films} films")?;
        }
        for note in notes {
            writeln!(f, "note: {note}")?;
        }
        for [a, b] in alike {
            writeln!(f, "alike: {a} and {b}; if they are one film, put them into one group or leave one out")?;
        }
        for odd in odd {
            writeln!(f, "odd: {odd}; look at it on the contact sheet")?;
        }
        for fault in faults {
            writeln!(f, "fault: {fault}")?;
        }
        write!(f, "{} faults", faults.len())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::train::datasets::{DatasetError, LabelPlace};

    /// A film with a bright disc at `at`, written as a PNG.
    fn film(folder: &Path, name: &str, [width, height]: [u32; 2], at: [f64; 2], landmarks: &[Point]) -> LabelledFilm {
        let path = folder.join(format!("{name}.png"));
        let gray = |x: u32, y: u32| {
            let from = (f64::from(x) - at[0]).hypot(f64::from(y) - at[1]);
            image::Luma([(230.0 - 3.0 * from).max(f64::from(x * 7 % 50)) as u8])
        };
        image::GrayImage::from_fn(width, height, gray).save(&path).expect("a file in a fresh folder");
        LabelledFilm::new(name.to_owned(), path, landmarks.to_vec())
    }

    fn check_of(films: Vec<LabelledFilm>) -> Findings {
        check(&reading(films, &["a note"], Vec::new()), &[], || ())
    }

    fn reading(films: Vec<LabelledFilm>, notes: &[&str], faults: Vec<DatasetError>) -> Reading {
        let notes = notes.iter().copied().map(str::to_owned).collect();
        Reading { dataset: Dataset { landmarks: vec!["sella".into(), "nasion".into()], films, notes }, faults }
    }

    #[test]
    fn counts_sizes_and_faults_are_said() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let points = [Point::new(10.0, 20.0), Point::new(95.0, 30.0)];
        let whole = film(folder.path(), "whole", [120, 90], [30.0, 30.0], &points);
        let mut narrow = film(folder.path(), "narrow", [80, 100], [60.0, 70.0], &points);
        narrow.mm_per_px = Some(0.1);
        let mut hidden = film(folder.path(), "hidden", [80, 100], [10.0, 90.0], &points);
        hidden.visible[1] = false;
        let broken = folder.path().join("broken.png");
        fs::write(&broken, b"\x89PNG\r\n").expect("a file in a fresh folder");
        let broken = LabelledFilm::new("broken".into(), broken, points.to_vec());
        let findings = check_of(vec![whole, narrow, hidden, broken]);
        assert_eq!((findings.films, findings.landmarks, findings.groups, findings.scaled), (4, 2, 4, 1));
        assert_eq!(findings.sizes, Some([Size::new(80, 90), Size::new(120, 100)]));
        assert_eq!(findings.faults.len(), 2, "{findings}");
        assert!(
            findings.faults[0].ends_with("narrow.png: nasion at (95, 30) is not on the film of 80x100"),
            "{findings}"
        );
        assert!(findings.faults[1].contains("broken.png: "), "{findings}");
        assert!(findings.to_string().ends_with("2 faults") && findings.to_string().contains("note: a note"));
        // Three pictures in a row, with the landmark's colour on the first.
        assert_eq!(findings.sheet.dimensions(), (3 * 160, 200));
        assert_eq!(findings.sheet.get_pixel(13, 26), &Rgb([255, 196, 0]));
    }

    #[test]
    fn the_same_film_at_another_size_looks_alike_and_another_does_not() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let points = [Point::new(10.0, 20.0), Point::new(20.0, 30.0)];
        let first = film(folder.path(), "first", [240, 240], [60.0, 80.0], &points);
        let pixels = image::open(&first.path).expect("just written");
        let smaller = pixels.resize_exact(180, 180, image::imageops::FilterType::Triangle);
        let path = folder.path().join("again.png");
        smaller.save(&path).expect("a file in a fresh folder");
        let again = LabelledFilm::new("again".into(), path, points.to_vec());
        let other = film(folder.path(), "other", [240, 240], [170.0, 150.0], &points);
        let findings = check_of(vec![first.clone(), again.clone(), other.clone()]);
        assert_eq!(findings.alike, [["first".to_owned(), "again".to_owned()]]);
        let together = LabelledFilm { group: "first".into(), ..again.clone() };
        let findings = check_of(vec![first.clone(), together, other.clone()]);
        assert!(findings.alike.is_empty());
        assert_eq!(findings.notes, ["a note", "first and again look alike and are of one group"]);
        // A film of a test set is no film of a group that is trained on.
        let test = reading(vec![again.clone()], &[], Vec::new());
        let findings =
            check(&reading(vec![other.clone(), first.clone()], &[], Vec::new()), &[("test1".to_owned(), test)], || ());
        assert_eq!(findings.alike, [["first".to_owned(), "test1/again".to_owned()]]);
        assert_eq!(findings.films, 2);
        // Nor may a test set hold a film twice.
        let [a, b] =
            [first, LabelledFilm { group: "first".into(), ..again }].map(|film| reading(vec![film], &[], Vec::new()));
        let others = [("test1".to_owned(), a), ("test2".to_owned(), b)];
        let findings = check(&reading(vec![other], &[], Vec::new()), &others, || ());
        assert_eq!(findings.alike, [["test1/first".to_owned(), "test2/again".to_owned()]]);
    }

    #[test]
    fn a_landmark_off_the_film_is_named_with_the_place_of_its_label() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let points = [Point::new(10.0, 20.0), Point::new(95.0, 30.0)];
        let mut narrow = film(folder.path(), "narrow", [80, 100], [60.0, 70.0], &points);
        narrow.labels = LabelPlace::Lines(vec!["senior/narrow.txt".into(), "junior/narrow.txt".into()]);
        let [ref fault] = check_of(vec![narrow.clone()]).faults[..] else { panic!("one landmark is off the film") };
        let place = "80x100 (labelled in senior/narrow.txt:2, junior/narrow.txt:2)";
        assert!(fault.ends_with(place), "{fault}");
        narrow.labels = LabelPlace::Entry { path: "labels.csv".into(), entry: "line 3".into() };
        let [ref fault] = check_of(vec![narrow]).faults[..] else { panic!("one landmark is off the film") };
        assert!(fault.ends_with("80x100 (labelled in labels.csv: line 3)"), "{fault}");
    }

    #[test]
    fn broken_labels_and_the_other_parts_faults_and_notes_are_listed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let points = [Point::new(10.0, 20.0), Point::new(20.0, 30.0)];
        let sound = film(folder.path(), "sound", [80, 100], [60.0, 70.0], &points);
        let mut outside = film(folder.path(), "outside", [80, 100], [20.0, 30.0], &points);
        outside.landmarks[0].x = 200.0;
        let broken = folder.path().join("broken.png");
        fs::write(&broken, b"\x89PNG\r\n").expect("a file in a fresh directory");
        let broken = LabelledFilm::new("broken".into(), broken, points.to_vec());
        let fault = |line: usize| DatasetError::Label {
            path: "labels.txt".into(),
            line,
            expected: "`x,y` in pixels",
            found: "x".into(),
        };
        let train = reading(vec![sound], &["of both"], vec![fault(3), fault(5)]);
        let test = reading(vec![outside, broken], &["of both", "of the test"], vec![fault(5), fault(7)]);
        let findings = check(&train, &[("test1".to_owned(), test)], || ());
        assert_eq!(findings.notes, ["of both", "test1: of the test"]);
        assert_eq!(findings.others, [("test1".to_owned(), 2)]);
        let starts = ["labels.txt:3: ", "labels.txt:5: ", "test1: labels.txt:7: ", "test1: ", "test1: "];
        assert_eq!(findings.faults.len(), starts.len(), "{findings}");
        assert!(findings.faults.iter().zip(starts).all(|(fault, start)| fault.starts_with(start)), "{findings}");
        assert!(findings.faults[3].contains("outside.png: sella at (200, 20) is not on the film"), "{findings}");
        assert!(findings.faults[4].contains("broken.png: "), "{findings}");
        assert!(findings.to_string().contains("\ntest1: 2 films\n"), "{findings}");
    }

    #[test]
    fn exchanged_landmarks_and_shapes_of_another_kind_are_pointed_out() {
        let shape = [(20.0, 15.0), (60.0, 22.0), (70.0, 70.0), (30.0, 80.0), (45.0, 40.0)];
        let names: Vec<String> = ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
        let film = |i: usize| {
            let moved = |(k, &(x, y)): (usize, &(f64, f64))| {
                Point::new(x + i as f64 + (i * k % 3) as f64, y + ((i + k) % 3) as f64)
            };
            LabelledFilm::new(
                format!("{i:02}"),
                format!("{i:02}.png").into(),
                shape.iter().enumerate().map(moved).collect(),
            )
        };
        let mut films: Vec<LabelledFilm> = (0..12).map(film).collect();
        assert_eq!(odd_labels(&films, &names), [""; 0]);
        films[4].landmarks.swap(1, 3);
        films[4].labels = LabelPlace::Lines(vec!["04.txt".into()]);
        films[7].landmarks = (0..5).map(|k| Point::new(f64::from(k * k), f64::from(60 - 11 * k))).collect();
        let odd = odd_labels(&films, &names);
        let exchanged = "04.png: b and d look exchanged (labelled in 04.txt:2, 04.txt:4)";
        assert!(odd.contains(&exchanged.to_owned()), "{odd:?}");
        assert!(odd.iter().any(|line| line.starts_with("07.png: its landmarks lie ")), "{odd:?}");
        assert!(odd.iter().all(|line| line.starts_with("04.png") || line.starts_with("07.png")), "{odd:?}");
    }
}
