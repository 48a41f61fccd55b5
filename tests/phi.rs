//! Nothing of a patient leaves the device, and no secret shows (R31, R39).
//!
//! A canary stands in every text that a film can hold, whole films and broken ones, and in the names of their files and
//! folders; then everything that the daemon says is searched for it. What may hold it stays on the device and is for the
//! daemon's user alone: the film itself in the quarantine, and the paths of known files in the state's database.

#[path = "support/bundle.rs"]
mod bundle;
#[path = "support/daemon.rs"]
#[expect(dead_code, reason = "this daemon runs under a umask of its own, with its journal in a file")]
mod daemon;
#[path = "support/films.rs"]
#[expect(dead_code, reason = "DICOM films are made here, with everything in them")]
mod films;
#[path = "support/mosquitto.rs"]
#[expect(dead_code, reason = "other tests stop it, and let its certificates expire")]
mod mosquitto;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

use daemon::Home;
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry, VirtualVr};
use dicom_core::header::Header;
use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, tags, uids};
use dicom_object::mem::InMemElement;
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use films::{Kind, film, sha256};
use flate2::read::GzDecoder;
use mosquitto::{Authority, Mosquitto};
use rustix::process::{Pid, Signal, kill_process};

/// In what a film says.
const PATIENT: &str = "QzxPatientVqj";
/// In the names of files and folders.
const NAME: &str = "QzxFileNameVqj";
/// As an identifier of DICOM.
const UID: &str = "1.2.826.0.1.3680043.10.987654321.1234567";
const PASSWORD: &str = "QzxPasswordVqj";
const TOKEN_KEY: &str = "QzxTokenKeyVqj0123456789abcdef";

/// Everything that must not be found, with the forms it could hide in.
struct Forbidden {
    forms: Vec<(String, Vec<u8>)>,
}

impl Forbidden {
    fn new(words: &[&str]) -> Self {
        let mut forms = Vec::new();
        for word in words {
            let lower = word.to_ascii_lowercase();
            let utf16: Vec<u16> = lower.encode_utf16().collect();
            forms.push(((*word).to_owned(), lower.clone().into_bytes()));
            forms.push((format!("{word} in UTF-16LE"), utf16.iter().flat_map(|unit| unit.to_le_bytes()).collect()));
            forms.push((format!("{word} in UTF-16BE"), utf16.iter().flat_map(|unit| unit.to_be_bytes()).collect()));
            forms.push((format!("{word} in hexadecimal"), hex(word.as_bytes()).into_bytes()));
            forms.push((format!("{word} as a digest"), sha256(word).into_bytes()));
        }
        Self { forms }
    }

    /// The forms that are in these bytes, whatever their case.
    fn found_in(&self, bytes: &[u8]) -> Vec<&str> {
        let lower = bytes.to_ascii_lowercase();
        let is_in = |form: &[u8]| lower.windows(form.len()).any(|window| window == form);
        self.forms.iter().filter(|(_, form)| is_in(form)).map(|(name, _)| name.as_str()).collect()
    }

    fn not_in(&self, place: &str, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        assert!(!bytes.is_empty(), "{place} is empty: nothing was searched");
        let found = self.found_in(bytes);
        assert!(found.is_empty(), "{found:?} in {place}: {}", String::from_utf8_lossy(bytes));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A VR whose values are text.
fn is_text(vr: VR) -> bool {
    use VR::{AE, AS, CS, DA, DS, DT, IS, LO, LT, PN, SH, ST, TM, UC, UI, UR, UT};
    matches!(vr, AE | AS | CS | DA | DS | DT | IS | LO | LT | PN | SH | ST | TM | UC | UI | UR | UT)
}

/// The groups of the dictionary that data sets have.
fn groups() -> impl Iterator<Item = u16> {
    let single =
        [0x0100, 0x0400, 0x2000, 0x2010, 0x2020, 0x2030, 0x2040, 0x2050, 0x2100, 0x2110, 0x2120, 0x2130, 0x2200];
    let more = [0x3002, 0x3004, 0x3006, 0x3008, 0x300A, 0x300C, 0x300E, 0x3010, 0x4000, 0x4008, 0x4010, 0x5200];
    (0x0008..=0x008C).step_by(2).chain(single).chain(more)
}

/// Every text element of the standard with the canary in it.
static EVERY_TEXT: LazyLock<Vec<InMemElement>> = LazyLock::new(|| {
    let mut elements = Vec::new();
    for group in groups() {
        for element in 0..=0xFFFF {
            let tag = Tag(group, element);
            let Some(entry) = StandardDataDictionary.by_tag(tag) else { continue };
            let VirtualVr::Exact(vr) = entry.vr() else { continue };
            if is_text(vr) {
                elements.push(DataElement::new(tag, vr, if vr == VR::UI { UID } else { PATIENT }));
            }
        }
    }
    assert!(elements.len() > 1500, "only {} text elements: the walk is broken", elements.len());
    elements
});

/// The golden film: width, height and gray values without a zero.
static GRAY: LazyLock<(u32, u32, Vec<u8>)> = LazyLock::new(|| {
    let gray = image::load_from_memory(bundle::open().golden()).expect("the bundle is checked").into_luma8();
    (gray.width(), gray.height(), gray.into_raw().iter().map(|value| value | 1).collect())
});

fn sequence(tag: Tag, items: Vec<InMemDicomObject>) -> InMemElement {
    DataElement::new(tag, VR::SQ, DataSetSequence::from(items))
}

/// What the decoder reads to make pixels of a film.
fn is_needed(tag: Tag) -> bool {
    tag.group() == 0x0028
        || [tags::SPECIFIC_CHARACTER_SET, tags::SOP_CLASS_UID].contains(&tag)
        || [tags::IMAGER_PIXEL_SPACING, tags::ESTIMATED_RADIOGRAPHIC_MAGNIFICATION_FACTOR].contains(&tag)
}

/// The golden film as a DICOM file that names its patient wherever it can; `changed` replaces elements.
fn dicom(number: u8, transfer_syntax: &str, changed: Vec<InMemElement>) -> Vec<u8> {
    let (width, height, mut pixels) = GRAY.clone();
    // One pixel tells the films apart.
    pixels[0] = number;
    let count = |tag, value: u32| InMemElement::new(tag, VR::US, PrimitiveValue::from(value as u16));
    let mut object = InMemDicomObject::from_element_iter(EVERY_TEXT.iter().filter(|e| !is_needed(e.tag())).cloned());
    for element in [
        DataElement::new(tags::SOP_CLASS_UID, VR::UI, uids::COMPUTED_RADIOGRAPHY_IMAGE_STORAGE),
        DataElement::new(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2"),
        count(tags::SAMPLES_PER_PIXEL, 1),
        count(tags::ROWS, height),
        count(tags::COLUMNS, width),
        count(tags::BITS_ALLOCATED, 8),
        count(tags::BITS_STORED, 8),
        count(tags::HIGH_BIT, 7),
        count(tags::PIXEL_REPRESENTATION, 0),
        DataElement::new(tags::PIXEL_DATA, VR::OB, PrimitiveValue::U8(pixels.into())),
        // Of a maker of devices, and in a sequence in a sequence.
        DataElement::new(Tag(0x0009, 0x0010), VR::LO, PATIENT),
        DataElement::new(Tag(0x0009, 0x1001), VR::LT, PATIENT),
        DataElement::new(Tag(0x0009, 0x1002), VR::UN, PrimitiveValue::U8(PATIENT.as_bytes().into())),
        sequence(
            tags::REQUEST_ATTRIBUTES_SEQUENCE,
            vec![InMemDicomObject::from_element_iter([
                DataElement::new(tags::PATIENT_NAME, VR::PN, PATIENT),
                sequence(
                    tags::SCHEDULED_PROTOCOL_CODE_SEQUENCE,
                    vec![InMemDicomObject::from_element_iter([
                        DataElement::new(tags::CODE_MEANING, VR::LO, PATIENT),
                        DataElement::new(tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, UID),
                    ])],
                ),
            ])],
        ),
    ] {
        object.put(element);
    }
    for element in changed {
        object.put(element);
    }
    let meta = FileMetaTableBuilder::new()
        .transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN)
        .media_storage_sop_class_uid(uids::COMPUTED_RADIOGRAPHY_IMAGE_STORAGE)
        .media_storage_sop_instance_uid(UID)
        .implementation_version_name("QzxPatientVqj")
        .source_application_entity_title(PATIENT)
        .private_information_creator_uid(UID)
        .private_information(PATIENT.as_bytes().to_vec());
    let mut bytes = Vec::new();
    object.with_meta(meta).expect("it has all it needs").write_all(&mut bytes).expect("a Vec takes everything");
    // The preamble is anybody's.
    bytes[..PATIENT.len()].copy_from_slice(PATIENT.as_bytes());
    if transfer_syntax.is_empty() { bytes } else { with_transfer_syntax(bytes, transfer_syntax) }
}

/// The same file under another transfer syntax of the same length.
fn with_transfer_syntax(mut bytes: Vec<u8>, other: &str) -> Vec<u8> {
    let own = uids::EXPLICIT_VR_LITTLE_ENDIAN.as_bytes();
    assert_eq!(own.len(), other.len());
    let at = bytes.windows(own.len()).position(|window| window == own).expect("it stands in the file meta");
    bytes[at..at + own.len()].copy_from_slice(other.as_bytes());
    bytes
}

/// A PNG with the canary in `tEXt`, `zTXt`'s keyword and `iTXt`, behind its header.
fn png(number: u32) -> Vec<u8> {
    let plain = film(Kind::Png, number);
    let text = [b"Patient\0", PATIENT.as_bytes()].concat();
    let international = [b"Patient\0\0\0de\0", PATIENT.as_bytes(), b"\0", PATIENT.as_bytes()].concat();
    // The signature and IHDR are 8 and 25 bytes.
    let mut bytes = plain[..33].to_vec();
    for (kind, data) in [(b"tEXt", text), (b"iTXt", international)] {
        let mut crc = flate2::Crc::new();
        crc.update(kind);
        crc.update(&data);
        let length = u32::try_from(data.len()).expect("short");
        bytes.extend([&length.to_be_bytes()[..], kind, &data, &crc.sum().to_be_bytes()].concat());
    }
    bytes.extend(&plain[33..]);
    bytes
}

/// A JPEG with the canary in a comment and in EXIF's ImageDescription, behind its first marker.
fn jpeg(number: u32) -> Vec<u8> {
    let plain = film(Kind::Jpeg, number);
    let value = [PATIENT.as_bytes(), b"\0"].concat();
    // TIFF 6.0, little endian: one entry, ImageDescription (270), ASCII (2), its text behind the directory.
    let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x0e\x01\x02\0".to_vec();
    exif.extend(u32::try_from(value.len()).expect("short").to_le_bytes());
    exif.extend([26, 0, 0, 0, 0, 0, 0, 0]);
    exif.extend(&value);
    let mut bytes = plain[..2].to_vec();
    for (marker, data) in [(0xE1, exif.as_slice()), (0xFE, PATIENT.as_bytes())] {
        let length = u16::try_from(data.len() + 2).expect("short");
        bytes.extend([&[0xFF, marker][..], &length.to_be_bytes(), data].concat());
    }
    bytes.extend(&plain[2..]);
    bytes
}

/// The films, and whether each must have a result; the others may be refused.
fn all_films() -> Vec<(&'static str, Vec<u8>, bool)> {
    let text = |tag, vr, value: &str| vec![InMemElement::new(tag, vr, value)];
    let number = |tag, value: u16| vec![InMemElement::new(tag, VR::US, PrimitiveValue::from(value))];
    let mut odd_png = png(1);
    odd_png[25] = 5;
    let mut odd_jpeg = jpeg(1);
    let frame = odd_jpeg.windows(2).position(|marker| marker == [0xFF, 0xC0]).expect("a baseline JPEG");
    odd_jpeg[frame + 4] = 99;
    let half = |bytes: Vec<u8>| bytes[..bytes.len() / 2].to_vec();
    vec![
        ("whole.dcm", dicom(1, "", vec![]), true),
        ("whole.png", png(0), true),
        ("whole.jpg", jpeg(0), true),
        ("half.dcm", half(dicom(2, "", vec![])), false),
        ("half.png", half(png(2)), false),
        ("half.jpg", half(jpeg(2)), false),
        ("header.dcm", dicom(3, "", vec![])[..900].to_vec(), false),
        ("odd.png", odd_png, false),
        ("odd.jpg", odd_jpeg, false),
        ("photometric.dcm", dicom(4, "", text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, PATIENT)), false),
        ("window.dcm", dicom(5, "", text(tags::WINDOW_CENTER, VR::DS, PATIENT)), false),
        (
            "spacing.dcm",
            dicom(6, "", text(tags::IMAGER_PIXEL_SPACING, VR::DS, &format!("{PATIENT}\\{PATIENT}"))),
            false,
        ),
        ("slope.dcm", dicom(7, "", text(tags::RESCALE_SLOPE, VR::DS, PATIENT)), false),
        ("frames.dcm", dicom(8, "", text(tags::NUMBER_OF_FRAMES, VR::IS, PATIENT)), false),
        ("charset.dcm", dicom(9, "", text(tags::SPECIFIC_CHARACTER_SET, VR::CS, PATIENT)), false),
        ("bits.dcm", dicom(10, "", number(tags::BITS_STORED, 0)), false),
        ("rows.dcm", dicom(11, "", number(tags::ROWS, 60_000)), false),
        ("class.dcm", dicom(12, "", text(tags::SOP_CLASS_UID, VR::UI, UID)), false),
        ("syntax.dcm", dicom(13, "QzxPatientVqj.987.1", vec![]), false),
        ("text.dcm", format!("Patient: {PATIENT}\n").repeat(100).into_bytes(), false),
    ]
}

/// The daemon under the usual umask, its journal in a file.
struct Running {
    child: Child,
    journal: PathBuf,
}

impl Running {
    fn start(home: &Home) -> Self {
        let journal = home.path("journal");
        let mut command = Command::new("sh");
        command.args(["-c", "umask 022; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_landmarkd"), "run", "--config"]);
        command.arg(home.config()).stdin(Stdio::null()).stdout(Stdio::null());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LANDMARKD_")) {
            command.env_remove(name);
        }
        command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").env_remove("JOURNAL_STREAM");
        let child = command.stderr(File::create(&journal).expect("ours")).spawn().expect("it is built");
        Self { child, journal }
    }

    fn of_process(&self, name: &str) -> Vec<u8> {
        fs::read(format!("/proc/{}/{name}", self.child.id())).expect("it runs")
    }

    /// What it said until its end.
    fn stopped(mut self) -> Vec<u8> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it is our child");
        assert_eq!(self.child.wait().expect("it is our child").code(), Some(0));
        fs::read(&self.journal).expect("ours")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended as told.
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Head and body of a page.
fn page(address: SocketAddr, path: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("the page is served");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers and closes");
    answer
}

/// Every file and folder at and below a path.
fn everything(path: &Path, found: &mut Vec<PathBuf>) {
    found.push(path.to_owned());
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("ours") {
            everything(&entry.expect("ours").path(), found);
        }
    }
}

fn for_its_owner_alone(state: &Path) {
    let mut found = Vec::new();
    everything(state, &mut found);
    assert!(found.len() > 5, "{found:?}");
    for path in found {
        let metadata = fs::symlink_metadata(&path).expect("there");
        let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(metadata.mode() & 0o7777, expected, "{}", path.display());
    }
}

fn write_private(path: &Path, content: &str) {
    fs::write(path, content).expect("ours");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("ours");
}

/// Standard output and error of a subcommand.
fn said(home: &Home, arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landmarkd"));
    let output = command.args(arguments).arg("--config").arg(home.config()).output().expect("it is built");
    [output.stdout, output.stderr].concat()
}

#[test]
fn the_search_finds_each_form() {
    let forbidden = Forbidden::new(&[PATIENT]);
    let utf16: Vec<u16> = PATIENT.encode_utf16().collect();
    for bytes in [
        PATIENT.to_uppercase().into_bytes(),
        utf16.iter().flat_map(|unit| unit.to_le_bytes()).collect(),
        utf16.iter().flat_map(|unit| unit.to_be_bytes()).collect(),
        hex(PATIENT.as_bytes()).into_bytes(),
        sha256(PATIENT).to_uppercase().into_bytes(),
    ] {
        assert_eq!(forbidden.found_in(&[b"before", bytes.as_slice(), b"after"].concat()).len(), 1, "{bytes:?}");
    }
    assert_eq!(forbidden.found_in(b"qzxpatientvq"), Vec::<&str>::new());
    // The films do hold what is searched for.
    for (name, bytes, _) in all_films() {
        assert!(!forbidden.found_in(&bytes).is_empty(), "{name}");
    }
}

#[tokio::test]
async fn nothing_of_a_patient_and_no_secret_is_said_anywhere() {
    let keys = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(keys.path(), "ours");
    let doors = |directory: &Path| {
        let passwords = directory.join("passwords");
        let made =
            Command::new("mosquitto_passwd").args(["-b", "-c"]).arg(&passwords).args(["device", PASSWORD]).status();
        assert!(made.expect("part of mosquitto").success());
        format!(
            "cafile {}\ncertfile {}\nkeyfile {}\nallow_anonymous false\npassword_file {}",
            authority.ca.display(),
            authority.certificate.display(),
            authority.key.display(),
            passwords.display()
        )
    };
    let Some(broker) = Mosquitto::start(doors) else { return };
    let ca = authority.ca.to_str().expect("text");
    let mut subscriber = broker.subscribe("#", &["--cafile", ca, "-u", "device", "-P", PASSWORD]).await;

    let home = Home::new(broker.port());
    let (password, token_key) = (keys.path().join("password"), keys.path().join("token-key"));
    write_private(&password, &format!("{PASSWORD}\n"));
    write_private(&token_key, TOKEN_KEY);
    let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    home.configure(&format!(
        "[acquisition]\nrecursive = true\nmax_settle_s = 1\n[log]\nfilter = \"trace\"\n\
         [mqtt]\ntls = true\nca_file = {ca:?}\nclient_cert_file = {:?}\nclient_key_file = {:?}\nusername = \"device\"\n\
         password_file = {password:?}\n[result]\ntoken_key_file = {token_key:?}\n[health]\nlisten = \"{address}\"\n",
        authority.certificate, authority.key
    ));
    let folder = home.films().join(format!("room {NAME}"));
    fs::create_dir(&folder).expect("ours");
    let films = all_films();
    for (name, bytes, _) in &films {
        fs::write(folder.join(format!("{NAME}-{name}")), bytes).expect("ours");
    }

    let pem = fs::read_to_string(&authority.key).expect("ours");
    let secret_key = pem.lines().nth(1).expect("a PEM file has lines");
    let secrets = Forbidden::new(&[PASSWORD, TOKEN_KEY, secret_key]);
    let forbidden = Forbidden::new(&[PATIENT, NAME, UID, "987654321", PASSWORD, TOKEN_KEY, secret_key]);

    let daemon = Running::start(&home);
    let (mut results, mut refusals) = (Vec::new(), 0);
    while results.len() + refusals < films.len() {
        let (topic, document) = subscriber.next().await;
        forbidden.not_in(&topic, format!("{topic} {document}"));
        if topic.ends_with("/result") {
            results.push(document["data"]["image"]["sha256"].as_str().expect("a digest").to_owned());
        } else if topic.ends_with("/error") {
            refusals += 1;
        }
    }
    assert!(refusals >= 10, "{refusals} refusals: most of the films should not be readable");
    for (name, bytes, must) in &films {
        assert!(!must || results.contains(&sha256(bytes)), "{name} has no result");
    }

    for path in ["/", "/status.json", "/metrics", "/healthz", "/readyz"] {
        forbidden.not_in(path, page(address, path));
    }
    secrets.not_in("the command line", daemon.of_process("cmdline"));
    secrets.not_in("the environment", daemon.of_process("environ"));
    for_its_owner_alone(&home.state());
    let archive = home.path("diag.tar.gz");
    forbidden.not_in("doctor", said(&home, &["doctor"]));
    forbidden.not_in("doctor --json", said(&home, &["doctor", "--json", "--probe-broker"]));
    forbidden.not_in("diag", said(&home, &["diag", archive.to_str().expect("text")]));
    let journal = daemon.stopped();
    // It says more than it usually does, and still nothing of these.
    assert!(journal.windows(5).any(|word| word == b"DEBUG"), "{}", String::from_utf8_lossy(&journal));
    forbidden.not_in("the journal", journal);
    for_its_owner_alone(&home.state());
    forbidden.not_in("spool", said(&home, &["spool", "ls"]));

    let mut unpacked = Vec::new();
    GzDecoder::new(File::open(&archive).expect("written")).read_to_end(&mut unpacked).expect("a whole archive");
    assert!(unpacked.len() > 4096, "{} bytes", unpacked.len());
    forbidden.not_in("the archive", unpacked);

    let mut state = Vec::new();
    everything(&home.state(), &mut state);
    let (mut reasons, mut kept) = (0, 0);
    let of_films = Forbidden::new(&[PATIENT, UID, PASSWORD, TOKEN_KEY, secret_key]);
    for path in state.iter().filter(|path| path.is_file()) {
        let bytes = fs::read(path).expect("ours");
        match path.file_name().and_then(|name| name.to_str()) {
            Some("reason.json") => {
                reasons += 1;
                forbidden.not_in("reason.json", bytes);
            }
            Some("film") => kept += 1,
            // The paths of known files are here, and nothing that a film says.
            Some("state.redb") => of_films.not_in("state.redb", bytes),
            _ if bytes.is_empty() => {}
            other => forbidden.not_in(other.unwrap_or("a file of the state"), bytes),
        }
    }
    assert!(reasons >= 5 && reasons == kept, "{reasons} reasons, {kept} films");
}
