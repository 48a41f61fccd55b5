//! A table of labels: `file,NAME_x,NAME_y,...`, a line a film.

use std::collections::BTreeSet;
use std::path::Path;

use super::DatasetError;
use super::generic::{Labels, Row, is_landmark_name};
use crate::geometry::Point;

const COLUMNS: &str = "expected `file`, `group`, `mm_per_px`, and for each landmark NAME_x and NAME_y with a name of \
                       a-z, 0-9 and _";

/// What stands in a column.
#[derive(Clone, Copy)]
enum Column {
    File,
    Group,
    MmPerPx,
    X(usize),
    Y(usize),
}

/// What is wrong in a line, and what to do about it.
type Fault = (String, String);

/// Reads the table; lines without any character but spaces are passed over, and broken ones are faults.
pub(super) fn parse(path: &Path, text: &str) -> Result<Labels, DatasetError> {
    let wrong = |i: usize, (problem, remedy): Fault| DatasetError::Entry {
        path: path.to_owned(),
        entry: format!("line {}", i + 1),
        problem,
        remedy,
    };
    // A byte order mark is what some spreadsheets start with.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let (first, header) = lines.next().unwrap_or((0, ""));
    let (columns, landmarks) = columns(header).map_err(|fault| wrong(first, fault))?;
    let (mut rows, mut faults) = (Vec::new(), Vec::new());
    for (i, line) in lines {
        match row(i, line, &columns, landmarks.len()) {
            Ok(row) => rows.push(row),
            Err(fault) => faults.push(wrong(i, fault)),
        }
    }
    Ok(Labels { rows, landmarks, notes: Vec::new(), faults })
}

fn unquoted(line: &str) -> Result<(), Fault> {
    if line.contains('"') {
        return Err(("it has a quotation mark".to_owned(), "write the cells without quotes or commas".to_owned()));
    }
    Ok(())
}

/// The columns, and the landmarks in the order of their first one.
fn columns(header: &str) -> Result<(Vec<Column>, Vec<String>), Fault> {
    unquoted(header)?;
    if header.contains([';', '\t']) && !header.contains(',') {
        let remedy = "save the table with commas between the cells and points in the numbers";
        return Err(("it has no commas".to_owned(), remedy.to_owned()));
    }
    let mut columns = Vec::new();
    let mut landmarks: Vec<String> = Vec::new();
    let mut seen = BTreeSet::new();
    for cell in header.split(',').map(str::trim) {
        if !seen.insert(cell) {
            return Err((format!("the column `{cell}` occurs twice"), "rename or remove one".to_owned()));
        }
        let mut landmark = |name: &str| {
            if !is_landmark_name(name) {
                return Err((format!("`{cell}` names no column"), COLUMNS.to_owned()));
            }
            Ok(landmarks.iter().position(|known| known == name).unwrap_or_else(|| {
                landmarks.push(name.to_owned());
                landmarks.len() - 1
            }))
        };
        columns.push(match cell {
            "file" => Column::File,
            "group" => Column::Group,
            "mm_per_px" => Column::MmPerPx,
            _ => match (cell.strip_suffix("_x"), cell.strip_suffix("_y")) {
                (Some(name), _) => Column::X(landmark(name)?),
                (_, Some(name)) => Column::Y(landmark(name)?),
                _ => return Err((format!("`{cell}` names no column"), COLUMNS.to_owned())),
            },
        });
    }
    for missing in
        landmarks.iter().flat_map(|name| [format!("{name}_x"), format!("{name}_y")]).chain(["file".to_owned()])
    {
        if !seen.contains(missing.as_str()) {
            return Err((format!("there is no column `{missing}`"), "add it".to_owned()));
        }
    }
    if landmarks.is_empty() {
        return Err(("there is no landmark".to_owned(), COLUMNS.to_owned()));
    }
    Ok((columns, landmarks))
}

fn row(i: usize, line: &str, columns: &[Column], landmarks: usize) -> Result<Row, Fault> {
    unquoted(line)?;
    let cells: Vec<&str> = line.split(',').map(str::trim).collect();
    if cells.len() != columns.len() {
        let problem = format!("it has {} cells, the first line {}", cells.len(), columns.len());
        return Err((problem, "write one cell for each column, and no comma within a cell".to_owned()));
    }
    let (mut x, mut y) = (vec![None; landmarks], vec![None; landmarks]);
    let mut row =
        Row { entry: format!("line {}", i + 1), file: String::new(), points: Vec::new(), group: None, mm_per_px: None };
    for (column, cell) in columns.iter().zip(cells) {
        let text = Some(cell).filter(|cell| !cell.is_empty());
        match *column {
            Column::File => row.file = cell.to_owned(),
            Column::Group => row.group = text.map(str::to_owned),
            Column::MmPerPx => row.mm_per_px = text.map(millimetres).transpose()?,
            Column::X(landmark) => x[landmark] = text.map(coordinate).transpose()?,
            Column::Y(landmark) => y[landmark] = text.map(coordinate).transpose()?,
        }
    }
    if row.file.is_empty() {
        return Err(("the cell `file` is empty".to_owned(), "name the image, or remove the line".to_owned()));
    }
    for (landmark, pair) in x.into_iter().zip(y).enumerate() {
        row.points.push(match pair {
            (Some(x), Some(y)) => Some(Point::new(x, y)),
            (None, None) => None,
            _ => {
                let problem = format!("landmark {} has one coordinate, `{}`", landmark + 1, row.file);
                return Err((problem, "fill both cells, or leave both empty where it is not visible".to_owned()));
            }
        });
    }
    Ok(row)
}

fn coordinate(cell: &str) -> Result<f64, Fault> {
    cell.parse().ok().filter(|value: &f64| value.is_finite()).ok_or_else(|| {
        let remedy = "write a number of pixels such as 812.5, or leave both cells empty where it is not visible";
        (format!("`{cell}` is no coordinate"), remedy.to_owned())
    })
}

fn millimetres(cell: &str) -> Result<f64, Fault> {
    cell.parse().ok().filter(|value: &f64| value.is_finite() && *value > 0.0).ok_or_else(|| {
        let remedy = "write millimetres such as 0.1, or leave the cell empty where it is unknown";
        (format!("`{cell}` is no side of a pixel"), remedy.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Labels, DatasetError> {
        parse(Path::new("labels.csv"), text)
    }

    #[test]
    fn columns_may_stand_in_any_order_and_lines_end_as_on_any_system() {
        let text = "\u{feff}mm_per_px,b_y,file,b_x,a_x_x,a_x_y\r\n0.1, 2 ,1.png,1,3.5,4e1\r\n\r\n,,2.png,,-1,0\r\n";
        let Labels { landmarks, rows, notes, faults } = parsed(text).expect("a table");
        assert_eq!(landmarks, ["b", "a_x"]);
        assert_eq!(rows[0].points, [Some(Point::new(1.0, 2.0)), Some(Point::new(3.5, 40.0))]);
        assert_eq!((rows[0].mm_per_px, rows[0].group.as_deref()), (Some(0.1), None));
        assert_eq!(rows[1].points, [None, Some(Point::new(-1.0, 0.0))]);
        assert_eq!((rows[1].entry.as_str(), rows[1].file.as_str(), rows[1].mm_per_px), ("line 4", "2.png", None));
        assert!(notes.is_empty() && faults.is_empty());
    }

    #[test]
    fn each_fault_is_named_by_line_and_value_with_a_remedy() {
        let header = "file,a_x,a_y,mm_per_px\n";
        for (text, expected) in [
            (String::new(), "line 1: `` names no column; expected `file`, `group`, `mm_per_px`, and for each"),
            ("file;a_x;a_y".to_owned(), "line 1: it has no commas; save the table with commas"),
            ("file,\"a_x\",a_y".to_owned(), "line 1: it has a quotation mark; write the cells without"),
            ("file,A_x,A_y".to_owned(), "line 1: `A_x` names no column; expected"),
            ("file,a_x,a_y,spacing".to_owned(), "line 1: `spacing` names no column; expected"),
            ("file,a_x,a_y,a_x".to_owned(), "line 1: the column `a_x` occurs twice; rename"),
            ("file,a_x,b_y".to_owned(), "line 1: there is no column `a_y`; add it"),
            ("a_x,a_y".to_owned(), "line 1: there is no column `file`; add it"),
            ("file,group".to_owned(), "line 1: there is no landmark; expected"),
            (format!("{header}1.png,1,2,\n2.png,1,2"), "line 3: it has 3 cells, the first line 4; write one"),
            (format!("{header}1.png,1,?,"), "line 2: `?` is no coordinate; write a number of pixels"),
            (format!("{header}1.png,1,inf,"), "line 2: `inf` is no coordinate"),
            (format!("{header}1.png,1,,"), "line 2: landmark 1 has one coordinate, `1.png`; fill both cells"),
            (format!("{header}1.png,1,2,0"), "line 2: `0` is no side of a pixel; write millimetres"),
            (format!("{header},1,2,0"), "line 2: `0` is no side of a pixel"),
            (format!("{header},1,2,"), "line 2: the cell `file` is empty; name the image"),
            (format!("{header}'1.png',1,\"2\","), "line 2: it has a quotation mark"),
        ] {
            let fault = parsed(&text).map(|labels| labels.faults.into_iter().next());
            let error = fault.unwrap_or_else(Some).expect("a broken table").to_string();
            assert!(error.starts_with("labels.csv: ") && error.contains(expected), "{error}");
        }
    }
}
