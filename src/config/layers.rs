//! The layers of a configuration and how they are laid over each other.
//!
//! From below: the defaults, the main file, the `*.toml` of `conf.d` beside it in the order of their names, and the
//! environment variables `LANDMARKD_<SECTION>__<KEY>`. A later layer replaces single keys, never whole sections.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use toml::Value;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, ConfigErrors, Origin};
use super::file::ConfigFile;
use super::keys::{self, KEYS, Key};
use super::unknown::{is_section, unknown_at_top, unknown_key, unknown_variable};

/// What the environment variables of the configuration begin with.
pub const ENVIRONMENT_PREFIX: &str = "LANDMARKD_";

/// The layers laid over each other: the mirror, and for each written key where its value comes from.
#[derive(Clone, Debug)]
pub struct Merged {
    /// The main file.
    pub path: PathBuf,
    /// What holds.
    pub file: ConfigFile,
    written: BTreeMap<&'static str, (Value, Origin)>,
}

impl Merged {
    /// Reads all layers below and including `environment`.
    ///
    /// # Errors
    /// Every unreadable file, unknown key and value of a wrong type or range, in the order of the layers.
    pub fn read(
        main: &Path,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigErrors> {
        let mut layers = Layers::default();
        let files = std::iter::once(main.to_path_buf()).chain(layers.list(&main.with_file_name("conf.d")));
        for path in files.collect::<Vec<_>>() {
            match std::fs::read_to_string(&path) {
                Ok(text) => layers.add_file(&path, &text),
                Err(source) => layers.errors.push(ConfigError::Read { path, source }),
            }
        }
        let mut variables: Vec<_> = environment.into_iter().collect();
        variables.sort();
        for (name, value) in &variables {
            // What is not UTF-8 keeps its place with a mark in it, which no rule accepts.
            layers.add_variable(&name.to_string_lossy(), &value.to_string_lossy());
        }
        layers.merge(main)
    }

    /// Where the value of `key` comes from.
    #[must_use]
    pub fn origin(&self, key: &str) -> Origin {
        self.written.get(key).map_or(Origin::Default, |(_, origin)| origin.clone())
    }

    /// The configuration in force as TOML, each value with its source behind it.
    #[must_use]
    pub fn to_toml(&self) -> String {
        self.printed(|_| true)
    }

    /// The same for others to read: the folders of films, which people name after their own habits, are withheld, and
    /// so is every text that is not known to name nobody.
    #[must_use]
    pub fn to_toml_that_names_nobody(&self) -> String {
        self.printed(Key::names_nobody)
    }

    fn printed(&self, is_shown: impl Fn(&Key) -> bool) -> String {
        let table = toml::Table::try_from(&self.file).expect("the mirror is plain data");
        let mut text = String::from("# The configuration in force, and where each value comes from.\n");
        let mut section = "";
        for key in KEYS {
            let (of, name) = key.parts();
            if of != section {
                section = of;
                text.push_str(&format!("\n[{section}]\n"));
            }
            match table[section].get(name) {
                Some(_) if !is_shown(key) => {
                    text.push_str(&format!("# {name} is withheld: {}\n", self.origin(key.name)))
                }
                Some(value) => text.push_str(&format!("{name} = {value}  # {}\n", self.origin(key.name))),
                None => text.push_str(&format!("# {name} is not set: {}\n", key.remedy)),
            }
        }
        text
    }
}

#[derive(Default)]
struct Layers {
    written: BTreeMap<&'static str, (Value, Origin)>,
    errors: Vec<ConfigError>,
}

impl Layers {
    /// The files of `conf.d` in the order of their names; a missing folder has none.
    fn list(&mut self, folder: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
        match entries {
            Ok(entries) => {
                let mut files: Vec<_> = entries.iter().map(std::fs::DirEntry::path).filter(|p| is_layer(p)).collect();
                files.sort();
                files
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(source) => {
                self.errors.push(ConfigError::Read { path: folder.to_path_buf(), source });
                Vec::new()
            }
        }
    }

    fn add_file(&mut self, path: &Path, text: &str) {
        let at = |offset: usize| Origin::File { path: path.to_path_buf(), line: line_of(text, offset) };
        // The spanned table tells where a key stands, the plain one what it holds.
        let (spans, values) = match DeTable::parse(text).and_then(|spans| Ok((spans, text.parse::<toml::Table>()?))) {
            Ok(both) => both,
            Err(e) => {
                let origin = at(e.span().map_or(0, |span| span.start));
                self.errors.push(ConfigError::Syntax { origin, message: e.message().to_owned() });
                return;
            }
        };
        // In the order of the lines, so that the mistakes come in that order too.
        let mut places = Vec::new();
        for (section, body) in spans.get_ref() {
            let (start, section) = (section.span().start, section.get_ref().as_ref());
            match body.get_ref() {
                DeValue::Table(body) if is_section(section) => {
                    places.extend(body.keys().map(|name| (name.span().start, section, Ok(name.get_ref().as_ref()))));
                }
                other => places.push((start, section, Err(matches!(other, DeValue::Table(_))))),
            }
        }
        places.sort_by_key(|(start, ..)| *start);
        for (start, section, place) in places {
            match place.map(|name: &str| (name, keys::find(&format!("{section}.{name}")))) {
                Ok((name, Some(key))) => self.write(key, values[section][name].clone(), at(start)),
                Ok((name, None)) => self.errors.push(unknown_key(section, name, at(start))),
                Err(is_table) => self.errors.push(unknown_at_top(section, is_table, at(start))),
            }
        }
    }

    fn add_variable(&mut self, variable: &str, text: &str) {
        let Some(rest) = variable.strip_prefix(ENVIRONMENT_PREFIX) else { return };
        let rest = rest.to_lowercase();
        let origin = Origin::Environment(variable.to_owned());
        let Some((section, name)) = rest.split_once("__") else {
            self.errors.extend(unknown_variable(variable, &rest, origin));
            return;
        };
        if !is_section(section) {
            return self.errors.push(unknown_at_top(section, true, origin));
        }
        let Some(key) = keys::find(&rest.replacen("__", ".", 1)) else {
            return self.errors.push(unknown_key(section, name, origin));
        };
        // `30`, `true` and `[0.1, 0.1]` are TOML; anything else is the text itself, without quotes.
        let plain = Value::String(text.to_owned());
        let parsed = format!("v = {text}").parse::<toml::Table>().ok().filter(|t| t.len() == 1);
        let value = parsed.map(|mut t| t.remove("v").unwrap_or(plain.clone())).filter(|v| key.allowed.accepts(v));
        self.write(key, value.unwrap_or(plain), origin);
    }

    fn write(&mut self, key: &'static Key, value: Value, origin: Origin) {
        if key.allowed.accepts(&value) {
            self.written.insert(key.name, (value, origin));
        } else {
            let (allowed, value) = (key.allowed.to_string(), value.to_string());
            self.errors.push(ConfigError::Value { origin, key: key.name, value, allowed, remedy: key.remedy });
        }
    }

    fn merge(self, main: &Path) -> Result<Merged, ConfigErrors> {
        if !self.errors.is_empty() {
            return Err(ConfigErrors(self.errors));
        }
        let mut table = toml::Table::new();
        for (name, (value, _)) in &self.written {
            let (section, key) = name.split_once('.').expect("every name has a section");
            let body = table.entry(section).or_insert_with(|| Value::Table(toml::Table::new()));
            body.as_table_mut().expect("sections are tables").insert(key.to_owned(), value.clone());
        }
        let file = table.try_into().expect("the mirror takes every value that its key allows");
        Ok(Merged { path: main.to_path_buf(), file, written: self.written })
    }
}

fn is_layer(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    !hidden && path.extension().is_some_and(|extension| extension == "toml")
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|&byte| byte == b'\n').count()
}

/// What is taken can be printed, and the print means the same. Text behind a zero byte is a variable's.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (file, variable) = text.split_once('\0').unwrap_or((&text, ""));
    let read = |text: &str, variable: &str| {
        let mut layers = Layers::default();
        layers.add_file(Path::new("/landmarkd.toml"), text);
        let (name, value) = variable.split_once('=').unwrap_or(("", ""));
        layers.add_variable(name, value);
        layers.merge(Path::new("/landmarkd.toml"))
    };
    match read(file, variable) {
        Ok(merged) => {
            let again = read(&merged.to_toml(), "").expect("what is printed is a configuration");
            assert_eq!(again.file, merged.file, "the print says something else");
            let surroundings = super::load::Surroundings { credentials: "/c".into(), default_model: "/m".into() };
            if let Err(errors) = super::validate(&merged, &surroundings) {
                assert!(!errors.to_string().is_empty(), "an error says what is wrong");
            }
        }
        Err(errors) => assert!(!errors.to_string().is_empty(), "an error says what is wrong"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const MAIN: &str = "[site]\nname = \"clinic\"\ndevice = \"ceph\"\n\n[acquisition]\nfolder = \"/srv/films\"\n";

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("conf.d")).expect("an empty folder");
        for (name, text) in files {
            fs::write(folder.path().join(name), text).expect("an empty folder");
        }
        folder
    }

    fn read(files: &[(&str, &str)], environment: &[(&str, &str)]) -> Result<Merged, String> {
        let folder = folder(files);
        let environment = environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let merged = Merged::read(&folder.path().join("landmarkd.toml"), environment);
        let place = format!("{}/", folder.path().display());
        merged.map_err(|errors| errors.to_string().replace(&place, ""))
    }

    #[test]
    fn a_later_layer_replaces_single_keys() {
        let merged = read(
            &[
                ("landmarkd.toml", &format!("{MAIN}rescan_s = 10\nmax_attempts = 4\nmax_settle_s = 20\n")),
                ("conf.d/20-b.toml", "[acquisition]\nmax_attempts = 6\n"),
                ("conf.d/10-a.toml", "[acquisition]\nmax_attempts = 5\nmax_settle_s = 30\n"),
                ("conf.d/30-c.toml.bak", "[acquisition]\nmax_attempts = 99\n"),
                ("conf.d/.40-d.toml", "[acquisition]\nmax_attempts = 99\n"),
            ],
            &[("LANDMARKD_ACQUISITION__RESCAN_S", "12")],
        )
        .expect("every layer is right");
        let section = &merged.file.acquisition;
        assert_eq!((section.rescan_s, section.max_attempts, section.max_settle_s), (12, 6, 30));
        assert_eq!(section.folder.as_deref(), Some(Path::new("/srv/films")));
        assert_eq!(
            merged.origin("acquisition.rescan_s").to_string(),
            "environment variable LANDMARKD_ACQUISITION__RESCAN_S"
        );
        assert!(merged.origin("acquisition.max_attempts").to_string().ends_with("conf.d/20-b.toml:2"));
        assert!(merged.origin("acquisition.max_settle_s").to_string().ends_with("conf.d/10-a.toml:3"));
        assert!(merged.origin("acquisition.folder").to_string().ends_with("landmarkd.toml:6"));
        assert_eq!(merged.origin("log.filter"), Origin::Default);
    }

    #[test]
    fn variables_hold_toml_or_plain_text() {
        let merged = read(
            &[("landmarkd.toml", MAIN)],
            &[
                ("LANDMARKD_SITE__NAME", "12"),
                ("LANDMARKD_SITE__DEVICE", "\"quoted\""),
                ("LANDMARKD_ACQUISITION__PIXEL_SPACING_MM", "[0.1, 0.2]"),
                ("LANDMARKD_ACQUISITION__FOLDER", "/srv/other films"),
                ("LANDMARKD_MQTT__TLS", "true"),
                ("LANDMARKD_CRASH_POINT", "none of the configuration's business"),
                ("PATH", "/bin"),
            ],
        )
        .expect("every variable is right");
        assert_eq!(merged.file.site.name.as_deref(), Some("12"));
        assert_eq!(merged.file.site.device.as_deref(), Some("quoted"));
        assert_eq!(merged.file.acquisition.pixel_spacing_mm, Some([0.1, 0.2]));
        assert_eq!(merged.file.acquisition.folder.as_deref(), Some(Path::new("/srv/other films")));
        assert!(merged.file.mqtt.tls);
    }

    #[test]
    fn the_printed_result_reads_back_and_names_every_source() {
        let merged = read(
            &[("landmarkd.toml", MAIN), ("conf.d/a.toml", "[mqtt]\ntls = true\n")],
            &[("LANDMARKD_LOG__FILTER", "debug")],
        )
        .expect("every layer is right");
        let text = merged.to_toml();
        assert_eq!(toml::from_str::<ConfigFile>(&text).expect("what is printed is TOML"), merged.file);
        for line in [
            "rescan_s = 30  # default",
            "filter = \"debug\"  # environment variable LANDMARKD_LOG__FILTER",
            "# port is not set: leave it out for 8883 with TLS and 1883 without",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
        assert!(text.lines().any(|l| l.starts_with("tls = true  # ") && l.ends_with("conf.d/a.toml:2")), "{text}");
    }

    #[test]
    fn each_mistake_is_named_with_its_place() {
        for (text, expected) in [
            ("[site]\nnmae = \"x\"\n", "landmarkd.toml:2: unknown key site.nmae: did you mean site.name?"),
            (
                "[acquisition]\nrescan = 3\n",
                "landmarkd.toml:2: unknown key acquisition.rescan: did you mean acquisition.rescan_s?",
            ),
            (
                "[mqtt]\nfolder = \"/x\"\n",
                "landmarkd.toml:2: unknown key mqtt.folder: did you mean acquisition.folder?",
            ),
            ("[state]\nzzz = 1\n", "landmarkd.toml:2: unknown key state.zzz: there are state.directory"),
            (
                "\n[aquisition]\nfolder = \"/x\"\n",
                "landmarkd.toml:2: unknown section aquisition: did you mean [acquisition]?",
            ),
            ("folder = \"/x\"\n", "landmarkd.toml:1: unknown key folder: did you mean acquisition.folder?"),
            ("[site\n", "landmarkd.toml:1: this is not TOML: "),
            ("[site]\nname = \"a\"\nname = \"b\"\n", "landmarkd.toml:3: this is not TOML: duplicate key"),
            (
                "[acquisition]\nrescan_s = 0\n",
                "landmarkd.toml:2: acquisition.rescan_s = 0 is not allowed: it takes a whole number from 1 to 3600 seconds; 30 suits most folders",
            ),
            (
                "[acquisition]\nafter = \"remove\"\n",
                "landmarkd.toml:2: acquisition.after = \"remove\" is not allowed: it takes one of \"keep\", \"move\", \"delete\"; keep leaves the folder untouched",
            ),
            ("site = 3\n", "landmarkd.toml:1: unknown key site: did you mean [site]?"),
        ] {
            let errors = read(&[("landmarkd.toml", text)], &[]).expect_err(text);
            assert!(errors.starts_with(expected), "{text}\n gives {errors}\n for  {expected}");
        }
    }

    #[test]
    fn all_mistakes_of_all_layers_are_told_at_once() {
        let errors = read(
            &[("landmarkd.toml", "[site]\nnmae = 1\n[log]\nformat = 3\n"), ("conf.d/a.toml", "[mqtt]\nport = 0\n")],
            &[("LANDMARKD_LOG__FORMAT", "xml"), ("LANDMARKD_LOG__FORMATT", "xml"), ("LANDMARKD_LOGG__FORMAT", "xml")],
        )
        .expect_err("six mistakes");
        let places = [
            "landmarkd.toml:2: unknown key",
            "landmarkd.toml:4: log.format = 3 is not",
            "conf.d/a.toml:2: mqtt.port = 0 is not",
            "environment variable LANDMARKD_LOGG__FORMAT: unknown section logg: did you mean [log]?",
            "environment variable LANDMARKD_LOG__FORMAT: log.format = \"xml\" is not",
            "environment variable LANDMARKD_LOG__FORMATT: unknown key log.formatt: did you mean log.format?",
        ];
        let lines: Vec<_> = errors.lines().collect();
        assert_eq!(lines.len(), places.len(), "{errors}");
        for (line, place) in lines.iter().zip(places) {
            assert!(line.starts_with(place), "{line} for {place}");
        }
    }

    #[test]
    fn a_forgotten_underscore_is_noticed() {
        let errors =
            read(&[("landmarkd.toml", MAIN)], &[("LANDMARKD_MQTT_HOST", "broker")]).expect_err("one underscore");
        assert_eq!(
            errors,
            "environment variable LANDMARKD_MQTT_HOST: unknown variable LANDMARKD_MQTT_HOST: did you mean LANDMARKD_MQTT__HOST?"
        );
    }

    #[test]
    fn a_secret_is_refused_by_name_and_never_repeated() {
        for (text, variable) in [
            ("", "LANDMARKD_MQTT__PASSWORD"),
            ("", "LANDMARKD_MQTT_PASSWORD"),
            ("", "LANDMARKD_RESULT__TOKEN_KEY"),
            ("[mqtt]\npassword = \"hunter2\"\n", ""),
            ("password = \"hunter2\"\n", ""),
            ("[mqtt]\nclient_key = \"hunter2\"\n", ""),
        ] {
            let errors = read(&[("landmarkd.toml", text)], &[(variable, "hunter2")]).expect_err("a secret in the open");
            assert!(errors.contains("would put a secret where others can read it: use mqtt.password_file"), "{errors}");
            assert!(!errors.contains("hunter2"), "{errors}");
        }
    }

    #[test]
    fn an_unreadable_layer_is_an_error() {
        let errors = read(&[], &[]).expect_err("no main file");
        assert!(errors.starts_with("landmarkd.toml: cannot read the configuration: "), "{errors}");
    }
}
