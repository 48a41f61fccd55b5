//! Bundles with tiny networks, archives of them good and bad, and signatures by the real minisign.
//!
//! Where minisign is not installed the tests say so and pass, except in CI (`CI` is set), where they fail.

#[path = "tiny_network.rs"]
mod tiny_network;

use std::fs::{self, File};
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use flate2::Compression;
use flate2::write::GzEncoder;
use landmarkd::geometry::{Frame, Point, Size};
use landmarkd::inference::Localizer;
use landmarkd::model::{
    Bundle, BundleParts, Conformal, End, GoldenFilm, Manifest, Moment, Network, Passed, Policy, Preprocessing,
    Registry, SelfTestError, Training,
};
use landmarkd::radiograph::{self, decode};
use tempfile::TempDir;
use tiny_network::{Behaviour, network};

/// The name of every bundle here.
pub(crate) const NAME: &str = "test-nfdp";
const PROGRAM: &str = env!("CARGO_BIN_EXE_landmarkd");
const FRAME: Frame = Frame::new(96, 128);
const LANDMARKS: [&str; 2] = ["sella", "nasion"];

/// A device with a state directory, a folder of keys and a key of who makes its bundles.
pub(crate) struct Device {
    directory: TempDir,
    state: PathBuf,
}

impl Device {
    /// `None` where minisign is not installed, after saying so.
    pub(crate) fn new() -> Option<Self> {
        let device = Self::with_state(|directory| directory.join("state"))?;
        fs::create_dir(device.state()).expect("the folder is ours");
        Some(device)
    }

    /// The same with the state directory of a daemon, which is there already.
    pub(crate) fn of(state: &Path) -> Option<Self> {
        Self::with_state(|_| state.to_owned())
    }

    fn with_state(state: impl FnOnce(&Path) -> PathBuf) -> Option<Self> {
        if Command::new("minisign").arg("-v").output().is_err() {
            assert!(std::env::var_os("CI").is_none(), "minisign is missing: apt-get install minisign");
            println!("skipped: minisign is not installed");
            return None;
        }
        let directory = tempfile::tempdir().expect("a temporary folder");
        let device = Self { state: state(directory.path()), directory };
        for folder in ["trust.d", "inbox", "keys"] {
            fs::create_dir(device.path(folder)).expect("the folder is ours");
        }
        device.make_key("maker");
        device.make_key("stranger");
        fs::copy(device.path("keys/maker.pub"), device.trust().join("maker.pub")).expect("ours");
        Some(device)
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join(below)
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.state.clone()
    }

    pub(crate) fn trust(&self) -> PathBuf {
        self.path("trust.d")
    }

    pub(crate) fn registry(&self) -> Registry {
        Registry::new(&self.state())
    }

    /// The program with `model` and these arguments.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("model").args(arguments);
        match arguments[0] {
            "install" => command.arg("--trust").arg(self.trust()).arg("--state").arg(self.state()),
            "verify" => command.arg("--trust").arg(self.trust()),
            _ => command.arg("--state").arg(self.state()),
        };
        command.env_remove("LANDMARKD_CRASH_POINT").env_remove("LANDMARKD_HANG_POINT");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program starts")
    }

    /// A signed archive of a bundle of this kind; see [`files`].
    pub(crate) fn signed(&self, version: &str, behaviour: &str) -> PathBuf {
        let archive = self.archive(version, &files(version, behaviour));
        self.sign(&archive, "maker", &comment(version), &[]);
        archive
    }

    /// An archive of these entries, unsigned.
    pub(crate) fn archive(&self, version: &str, files: &[(String, Vec<u8>)]) -> PathBuf {
        self.archive_of(version, &tar(files))
    }

    /// An archive of these bytes, which should be a tar.
    pub(crate) fn archive_of(&self, version: &str, tar: &[u8]) -> PathBuf {
        let path = self.path("inbox").join(format!("{NAME}-{version}.tar.gz"));
        let mut gzip = GzEncoder::new(File::create(&path).expect("ours"), Compression::fast());
        gzip.write_all(tar).expect("space");
        gzip.finish().expect("space");
        path
    }

    pub(crate) fn sign(&self, file: &Path, key: &str, comment: &str, more: &[&str]) {
        let key = self.path("keys").join(format!("{key}.key"));
        let signed = Command::new("minisign")
            .args(["-S", "-W"])
            .arg("-s")
            .arg(key)
            .arg("-m")
            .arg(file)
            .args(["-t", comment])
            .args(more)
            .output()
            .expect("minisign is there");
        assert!(signed.status.success(), "{}", String::from_utf8_lossy(&signed.stderr));
    }

    fn make_key(&self, name: &str) {
        let made = Command::new("minisign")
            .args(["-G", "-W", "-f"])
            .arg("-p")
            .arg(self.path("keys").join(format!("{name}.pub")))
            .arg("-s")
            .arg(self.path("keys").join(format!("{name}.key")))
            .output()
            .expect("minisign is there");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
}

/// The trusted comment that a version needs.
pub(crate) fn comment(version: &str) -> String {
    format!("landmarkd bundle {NAME} {version}")
}

/// The four files of a bundle, the manifest first, whose network is `good`, or `unusable`, `slow` or `greedy`; that of
/// an `off` one is good, and its golden film is not. Anything else is good and has other bytes.
pub(crate) fn files(version: &str, kind: &str) -> Vec<(String, Vec<u8>)> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let directory = folder.path().join("bundle");
    let name = format!("{kind} {version}");
    let tiny = |behaviour| network(&name, behaviour, i64::from(FRAME.width), i64::from(FRAME.height));
    let mut manifest = manifest(version);
    let golden = golden_film(manifest.golden.size);
    let parts = |manifest: &Manifest, network: &[u8]| BundleParts {
        manifest: manifest.clone(),
        network: network.to_vec(),
        golden: golden.clone(),
        card: "# Card\n".to_owned(),
    };
    let good = Bundle::write(&directory, parts(&manifest, &tiny(Behaviour::Good))).expect("a sound bundle");
    let film = decode(&golden, &radiograph::Limits::default()).expect("a film");
    let found = Localizer::new(&good).and_then(|mut network| network.localize(&film)).expect("it runs");
    let moved_px = if kind == "off" { 2.0 } else { 0.0 };
    manifest.golden.expected_px =
        found.landmarks.iter().map(|found| Point::new(found.point.x + moved_px, found.point.y)).collect();
    let network = match kind {
        "unusable" => b"this is no network".to_vec(),
        "slow" => tiny(Behaviour::Slow),
        "greedy" => tiny(Behaviour::Greedy),
        _ => tiny(Behaviour::Good),
    };
    Bundle::write(&directory, parts(&manifest, &network)).expect("a sound bundle");
    ["manifest.json", "network.onnx", "golden.png", "README.md"]
        .map(|name| (name.to_owned(), fs::read(directory.join(name)).expect("just written")))
        .into()
}

fn golden_film(size: Size) -> Vec<u8> {
    let gray = |x: u32, y: u32| image::Luma([(x * 5 + y * 2) as u8]);
    let mut bytes = Cursor::new(Vec::new());
    let film = image::GrayImage::from_fn(size.width, size.height, gray);
    film.write_to(&mut bytes, image::ImageFormat::Png).expect("a Vec takes everything");
    bytes.into_inner()
}

/// A tar of plain files.
pub(crate) fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = Vec::new();
    files.iter().for_each(|(name, content)| tar.extend(entry(name, b'0', content.len() as u64, content)));
    tar.extend([0; 1024]);
    tar
}

/// One entry of a tar, as wrong as asked for.
pub(crate) fn entry(name: &str, kind: u8, size: u64, content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].copy_from_slice(b"        ");
    header[156] = kind;
    if matches!(kind, b'1' | b'2') {
        header[157..168].copy_from_slice(b"/etc/passwd");
    }
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut bytes = header.to_vec();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// A self-test that every bundle passes, without a child.
pub(crate) fn passes(_: &Path) -> Result<Passed, SelfTestError> {
    Ok(Passed { off_px: 0.0, backend: "none".to_owned() })
}

/// Every path below a directory, with the digests of the files left out: what a user would see with `find`.
pub(crate) fn tree(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            found.push(path.strip_prefix(directory).expect("below it").display().to_string());
            if path.is_dir() {
                open.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Exit code and what was said on standard error.
pub(crate) fn outcome(output: &Output) -> (i32, String) {
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
}

pub(crate) fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

/// A device that serves with 1.0.0; `None` where there is no minisign.
pub(crate) fn serving_device() -> Option<Device> {
    let device = Device::new()?;
    let archive = device.signed("1.0.0", "good");
    json(&device.run(&["install", &archive.display().to_string(), "--activate", "--json"]));
    Some(device)
}

/// The version that a daemon would serve with, opened whole; it ends well.
pub(crate) fn serves(device: &Device) -> String {
    let registry = device.registry();
    let serving = registry.serve(&Moment::now(), Policy::default(), &passes).expect("something can serve");
    let serving = serving.expect("something is active");
    assert_eq!(Bundle::open(&serving.directory).expect("whole").network(), serving.bundle.network());
    registry.ended(End::Clean).expect("space");
    serving.id.version().to_owned()
}

fn manifest(version: &str) -> Manifest {
    Manifest {
        format: 1,
        name: NAME.to_owned(),
        version: version.to_owned(),
        minimum_daemon: "0.1.0".to_owned(),
        network: Network {
            file: "network.onnx".to_owned(),
            sha256: "0".repeat(64),
            frame: FRAME,
            heatmap_stride: 4,
            sigma_scale: vec![0.25, 0.5],
            conformal: Conformal { radius90: 2.0, radius95: 3.0 },
            preprocessing: Preprocessing::NfdpGray8,
        },
        landmarks: LANDMARKS.map(str::to_owned).to_vec(),
        measures: Vec::new(),
        golden: GoldenFilm {
            file: "golden.png".to_owned(),
            sha256: "1".repeat(64),
            size: Size::new(30, 40),
            expected_px: vec![Point::new(3.0, 4.0), Point::new(20.5, 39.0)],
            true_px: vec![Point::new(3.0, 4.5), Point::new(20.0, 39.0)],
            origin: "synthetic".to_owned(),
        },
        training: Training {
            data: "none".to_owned(),
            films: 0,
            hold_out_every: None,
            films_sha256: None,
            initialisation: "none".to_owned(),
            procedure: "none".to_owned(),
        },
        metrics: Vec::new(),
        licence: "CC0-1.0".to_owned(),
        notice: "research use, not a medical device".to_owned(),
    }
}
