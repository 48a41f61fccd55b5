//! An evaluation as text: a table of fixed width for people, lines for spreadsheets.

use super::cobb::mean_differences_deg;
use super::report::{DetectionRate, Evaluation, FilmErrors, LandmarkErrors, Setting};
use super::statistics::median;

impl Evaluation {
    /// One line an error, `film,landmark,error_mm` (or `_px`), with a heading; empty where the truth is not known.
    #[must_use]
    pub fn csv(&self) -> String {
        let mut text = format!("film,landmark,error_{}\n", self.setting.unit);
        for FilmErrors { film, errors, .. } in &self.per_film {
            for (landmark, error) in self.per_landmark.iter().zip(errors) {
                let error = error.map_or_else(String::new, |error| error.to_string());
                text += &format!("{},{},{error}\n", quoted(film), quoted(&landmark.landmark));
            }
        }
        text
    }

    /// The figures of each landmark and of all in columns of fixed width.
    #[must_use]
    pub fn table(&self) -> String {
        let Setting { model, protocol, data, truth, unit, .. } = &self.setting;
        let names = self.per_landmark.iter().map(|landmark| landmark.landmark.chars().count());
        let width = names.max().unwrap_or(0).max("all landmarks".len());
        let mut text = format!("{model} on {data}, {} films, truth: {truth}, protocol: {protocol}\n\n", self.films);
        let first = self.sdr[0];
        let rate = format!("SDR {} {unit} %", first.within);
        text += &format!(
            "{:<width$}  {:>8}  {:>9}  {:>8}  {rate:>12}\n",
            "landmark",
            format!("MRE {unit}"),
            format!("median {unit}"),
            format!("SD {unit}"),
        );
        let mut row = |name: &str, mre: f64, median: f64, sd: f64, percent: f64| {
            text += &format!("{name:<width$}  {mre:>8.3}  {median:>9.3}  {sd:>8.3}  {percent:>12.2}\n");
        };
        for LandmarkErrors { landmark, mre, median, sd, sdr_percent } in &self.per_landmark {
            row(landmark, *mre, *median, *sd, *sdr_percent);
        }
        let all = self.errors();
        row("all landmarks", self.mre, median(&all), self.sd, first.percent);
        text += "\nSDR";
        for (i, DetectionRate { within, percent }) in self.sdr.iter().enumerate() {
            text += &format!("{} {within} {unit} {percent:.2} %", if i == 0 { "" } else { "," });
        }
        text.push('\n');
        if let (Some(smape), Some([first, second, third])) = (self.smape_percent, mean_differences_deg(&self.angles()))
        {
            text += &format!(
                "Cobb angles: SMAPE {smape:.2} %, mean differences {first:.2}, {second:.2} and {third:.2} degrees\n"
            );
        }
        text
    }
}

/// A field of a CSV line (RFC 4180).
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::geometry::LengthUnit;
    use crate::train::reference::Protocol;

    fn evaluation() -> Evaluation {
        let setting = Setting {
            model: "ceph19-nfdp 1.0.0".into(),
            sha256: "0".repeat(64),
            protocol: Protocol::Exact,
            data: "ISBI 2015 Test1".into(),
            truth: "senior".into(),
            unit: LengthUnit::Mm,
        };
        let film = |film: &str, errors: [f64; 2]| FilmErrors {
            film: film.into(),
            errors: errors.map(Some).into(),
            angles: None,
        };
        let films = vec![film("151", [0.5, 2.0]), film("152", [4.5, 0.0]), film("153", [1.0, 0.25])];
        let landmarks = ["sella".to_owned(), "posterior_nasal_spine".to_owned()];
        Evaluation::new(setting, &landmarks, films, &[2.0, 4.0]).expect("sound input")
    }

    #[test]
    fn the_table_keeps_its_columns() {
        let expected = "\
ceph19-nfdp 1.0.0 on ISBI 2015 Test1, 3 films, truth: senior, protocol: exact

landmark                 MRE mm  median mm     SD mm    SDR 2 mm %
sella                     2.000      1.000     1.780         66.67
posterior_nasal_spine     0.750      0.250     0.890        100.00
all landmarks             1.375      0.750     1.539         83.33

SDR 2 mm 83.33 %, 4 mm 83.33 %
";
        assert_eq!(evaluation().table(), expected);
    }

    #[test]
    fn a_line_of_csv_is_an_error() {
        let csv = evaluation().csv();
        assert_eq!(csv.lines().count(), 7);
        assert!(csv.starts_with("film,landmark,error_mm\n151,sella,0.5\n151,posterior_nasal_spine,2\n"), "{csv}");
    }

    #[test]
    fn names_with_commas_and_quotes_are_quoted() {
        assert_eq!(quoted(r#"a "b", c"#), r#""a ""b"", c""#);
        assert_eq!(quoted("151"), "151");
    }
}
