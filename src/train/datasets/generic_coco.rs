//! Labels in COCO's keypoint format, as annotation tools export them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::DatasetError;
use super::generic::{Labels, Row, is_landmark_name};
use crate::geometry::Point;

/// The parts of the file that are read.
#[derive(Deserialize)]
struct Coco {
    images: Vec<Image>,
    annotations: Vec<Annotation>,
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct Image {
    id: i64,
    file_name: String,
    // The last two are not COCO's own.
    group: Option<String>,
    mm_per_px: Option<f64>,
}

#[derive(Deserialize)]
struct Annotation {
    id: i64,
    image_id: i64,
    category_id: i64,
    /// x, y and visibility of each landmark; an annotation of another kind has none.
    #[serde(default)]
    keypoints: Vec<f64>,
}

#[derive(Deserialize)]
struct Category {
    id: i64,
    #[serde(default)]
    keypoints: Vec<String>,
}

/// Reads the annotations that have a visible landmark, at most one a film; the others label nothing, and broken ones
/// are faults.
pub(super) fn parse(path: &Path, text: &str) -> Result<Labels, DatasetError> {
    let wrong = |entry: String, problem: String, remedy: &str| DatasetError::Entry {
        path: path.to_owned(),
        entry,
        problem,
        remedy: remedy.to_owned(),
    };
    let Coco { images, annotations, categories } = serde_json::from_str(text).map_err(|e| {
        let remedy = "expected COCO keypoints: an object with `images`, `annotations` and `categories`";
        wrong(format!("line {}", e.line()), e.to_string(), remedy)
    })?;
    let landmarks = landmarks(&categories).map_err(|(entry, problem, remedy)| wrong(entry, problem, remedy))?;
    let kinds: BTreeMap<i64, &Category> = categories.iter().map(|category| (category.id, category)).collect();
    let mut faults = Vec::new();
    let mut films: BTreeMap<i64, &Image> = BTreeMap::new();
    for image in &images {
        let entry = || format!("image {}", image.id);
        if films.insert(image.id, image).is_some() {
            faults.push(wrong(entry(), "its id occurs twice".to_owned(), "number the images anew"));
        }
        if let Some(mm) = image.mm_per_px.filter(|mm| *mm <= 0.0) {
            let remedy = "write millimetres such as 0.1, or leave it out where it is unknown";
            faults.push(wrong(entry(), format!("`mm_per_px` {mm} is no side of a pixel"), remedy));
        }
    }
    let (mut rows, mut others) = (Vec::new(), 0);
    let mut labelled: BTreeMap<i64, i64> = BTreeMap::new();
    for Annotation { id, image_id, category_id, keypoints } in annotations {
        let entry = format!("annotation {id}");
        let Some(image) = films.get(&image_id) else {
            let problem = format!("there is no image {image_id}");
            faults.push(wrong(entry, problem, "add it to `images`, or remove the annotation"));
            continue;
        };
        let Some(category) = kinds.get(&category_id) else {
            let problem = format!("there is no category {category_id}");
            faults.push(wrong(entry, problem, "add it to `categories`, or correct the annotation"));
            continue;
        };
        if category.keypoints.is_empty() || keypoints.is_empty() {
            others += 1;
            continue;
        }
        let points = match points(&keypoints, &landmarks) {
            Ok(points) => points,
            Err(problem) => {
                let remedy = "expected x and y in pixels and then 0, 1 or 2 for each landmark of the category";
                faults.push(wrong(entry, problem, remedy));
                continue;
            }
        };
        if points.iter().any(Option::is_some)
            && let Some(other) = labelled.insert(image_id, id)
        {
            let problem = format!("image {image_id}, `{}`, already has annotation {other}", image.file_name);
            faults.push(wrong(entry, problem, "keep one of them: a film has one set of landmarks"));
            continue;
        }
        let Image { file_name, group, mm_per_px, .. } = *image;
        rows.push(Row { entry, file: file_name.clone(), points, group: group.clone(), mm_per_px: *mm_per_px });
    }
    rows.retain(|row| row.points.iter().any(Option::is_some));
    let mut notes = Vec::new();
    if others > 0 {
        notes.push(format!("without keypoints, left out: {others} of the annotations in {}", path.display()));
    }
    Ok(Labels { landmarks, rows, notes, faults })
}

/// The names that all categories with landmarks agree on.
fn landmarks(categories: &[Category]) -> Result<Vec<String>, (String, String, &'static str)> {
    let mut kinds = categories.iter().filter(|category| !category.keypoints.is_empty());
    let entry = |category: &Category| format!("category {}", category.id);
    let Some(first) = kinds.next() else {
        let remedy = "name the landmarks as `keypoints` of a category";
        return Err(("categories".to_owned(), "none has keypoints".to_owned(), remedy));
    };
    let Category { keypoints: names, .. } = first;
    for (i, name) in names.iter().enumerate() {
        if !is_landmark_name(name) {
            let remedy = "rename the landmark with a-z, 0-9 and _ alone";
            return Err((entry(first), format!("the keypoint name `{name}` cannot be used"), remedy));
        }
        if names[..i].contains(name) {
            return Err((entry(first), format!("the keypoint name `{name}` occurs twice"), "rename one"));
        }
    }
    if let Some(other) = kinds.find(|category| category.keypoints != *names) {
        let problem = format!("its keypoints are not those of category {}", first.id);
        return Err((entry(other), problem, "keep the categories with the same landmarks alone"));
    }
    Ok(names.clone())
}

fn points(keypoints: &[f64], landmarks: &[String]) -> Result<Vec<Option<Point>>, String> {
    let (triples, rest) = keypoints.as_chunks::<3>();
    if triples.len() != landmarks.len() || !rest.is_empty() {
        return Err(format!("`keypoints` has {} numbers for {} landmarks", keypoints.len(), landmarks.len()));
    }
    let point = |([x, y, v], name): (&[f64; 3], &String)| match v {
        0.0 => Ok(None),
        1.0 | 2.0 => Ok(Some(Point::new(*x, *y))),
        _ => Err(format!("the visibility of `{name}` is {v}")),
    };
    triples.iter().zip(landmarks).map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CATEGORY: &str = r#"{"id": 1, "name": "skull", "keypoints": ["sella", "nasion"], "skeleton": []}"#;
    const IMAGE: &str = r#"{"id": 1, "file_name": "1.png", "width": 10, "height": 20}"#;

    fn parsed(images: &str, annotations: &str, categories: &str) -> Result<Labels, DatasetError> {
        let text = format!(
            r#"{{"info": {{}}, "images": [{images}],
            "annotations": [{annotations}], "categories": [{categories}]}}"#
        );
        parse(Path::new("labels.json"), &text)
    }

    fn annotation(id: i64, image: i64, keypoints: &str) -> String {
        format!(r#"{{"id": {id}, "image_id": {image}, "category_id": 1, "bbox": [], "keypoints": [{keypoints}]}}"#)
    }

    #[test]
    fn coordinates_are_taken_as_they_stand_and_visibility_0_is_absence() {
        let images = IMAGE.to_owned() + r#", {"id": 2, "file_name": "2.png", "group": "p", "mm_per_px": 0.5}"#;
        let box_only = r#"{"id": 9, "image_id": 2, "category_id": 2, "bbox": [1, 2, 3, 4]}"#;
        let annotations = [
            annotation(7, 2, "1.5, 2, 2, 0, 0, 0"),
            annotation(8, 1, "3, 4, 1, 5, 6, 2"),
            annotation(10, 1, "0, 0, 0, 0, 0, 0"),
            box_only.to_owned(),
        ];
        let categories = CATEGORY.to_owned() + r#", {"id": 2, "name": "box"}"#;
        let Labels { landmarks, rows, notes, faults } =
            parsed(&images, &annotations.join(","), &categories).expect("sound labels");
        assert_eq!(landmarks, ["sella", "nasion"]);
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].entry.as_str(), rows[0].file.as_str()), ("annotation 7", "2.png"));
        assert_eq!(rows[0].points, [Some(Point::new(1.5, 2.0)), None]);
        assert_eq!((rows[0].group.as_deref(), rows[0].mm_per_px), (Some("p"), Some(0.5)));
        assert_eq!(rows[1].points, [Some(Point::new(3.0, 4.0)), Some(Point::new(5.0, 6.0))]);
        assert_eq!((rows[1].group.as_deref(), rows[1].mm_per_px), (None, None));
        assert_eq!(notes, ["without keypoints, left out: 1 of the annotations in labels.json"]);
    }

    #[test]
    fn each_fault_is_named_by_its_id_and_value_with_a_remedy() {
        let good = annotation(7, 1, "1, 2, 2, 3, 4, 2");
        let pair = format!("{good}, {}", annotation(8, 1, "1, 2, 2, 3, 4, 2"));
        for (images, annotations, categories, expected) in [
            (IMAGE, annotation(7, 3, ""), CATEGORY, "annotation 7: there is no image 3; add it to `images`"),
            (IMAGE, good.clone(), r#"{"id": 2}"#, "categories: none has keypoints; name the landmarks"),
            (IMAGE, annotation(7, 1, "1, 2, 2"), CATEGORY, "annotation 7: `keypoints` has 3 numbers for 2 landmarks"),
            (IMAGE, annotation(7, 1, "1, 2, 2, 3, 4, 5"), CATEGORY, "annotation 7: the visibility of `nasion` is 5; "),
            (IMAGE, pair, CATEGORY, "annotation 8: image 1, `1.png`, already has annotation 7; keep one of them"),
            (
                IMAGE,
                good.clone(),
                r#"{"id": 3, "keypoints": ["Left eye"]}"#,
                "category 3: the keypoint name `Left eye` cannot be used; rename",
            ),
            (IMAGE, good.clone(), r#"{"id": 3, "keypoints": ["a", "a"]}"#, "`a` occurs twice; rename one"),
            (
                IMAGE,
                good.clone(),
                r#"{"id": 1, "keypoints": ["a"]}, {"id": 4, "keypoints": ["b"]}"#,
                "category 4: its keypoints are not those of category 1; keep",
            ),
            (IMAGE, good.clone(), r#"{"id": 5, "keypoints": ["a"]}"#, "annotation 7: there is no category 1; add it"),
            (
                r#"{"id": 1, "file_name": "1.png", "mm_per_px": -1}"#,
                String::new(),
                CATEGORY,
                "image 1: `mm_per_px` -1 is",
            ),
            (r#"{"id": 1}"#, good, CATEGORY, "line 1: missing field `file_name` at line 1 column"),
        ] {
            let fault = parsed(images, &annotations, categories).map(|labels| labels.faults.into_iter().next());
            let error = fault.unwrap_or_else(Some).expect("broken labels").to_string();
            assert!(error.starts_with("labels.json: ") && error.contains(expected), "{error}");
        }
        let twice = format!("{IMAGE}, {IMAGE}");
        let faults = parsed(&twice, "", CATEGORY).expect("named landmarks").faults;
        assert!(faults[0].to_string().contains("image 1: its id occurs twice; number the images anew"), "{faults:?}");
    }

    #[test]
    fn every_broken_annotation_is_a_fault_and_the_sound_ones_are_there() {
        let annotations =
            [annotation(7, 3, ""), annotation(8, 1, "1, 2, 2"), annotation(9, 1, "1, 2, 2, 3, 4, 2")].join(",");
        let Labels { rows, faults, .. } = parsed(IMAGE, &annotations, CATEGORY).expect("named landmarks");
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert!(matches!(&faults[..], [a, b] if a.contains("annotation 7: ") && b.contains("annotation 8: ")));
        assert_eq!(rows.iter().map(|row| row.entry.as_str()).collect::<Vec<_>>(), ["annotation 9"]);
    }
}
