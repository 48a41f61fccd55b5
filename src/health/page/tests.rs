use std::path::Path;
use std::time::SystemTime;

use super::super::films::tests::film;
use super::super::labels::{AcceleratorWord, Stage};
use super::super::metrics::tests::machine as hot;
use super::super::trouble::Trouble;
use super::super::view::tests::quiet;
use super::super::view::{AcceleratorView, BrokerView, Counts, StageView};
use super::*;
use crate::telemetry::{Board, Gpu, Machine};

const HOSTILE: &str = "\"><script>alert('x')</script>&amp;{{main}}";

/// Everything there is to show, and text that wants out of its place wherever text can stand.
fn hostile() -> StatusView {
    let view = quiet();
    let at = |s: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000 - s);
    let refused = FilmView { end: FilmEnd::Decode, steps: None, size_px: None, landmarks: 0, ..film(41, at(400)) };
    StatusView {
        site: HOSTILE.to_owned(),
        device: HOSTILE.to_owned(),
        troubles: [Trouble::DiskLow, Trouble::FolderMissing].into(),
        folder: FolderWord::Missing,
        broker: BrokerView { connected: false, session: 3 },
        queue: QueueView { length: 2, oldest: Some(at(300)) },
        counts: Counts { accepted: 2, refused: 1, quarantined: 1 },
        films: vec![
            FilmView { picture: true, ..film(43, at(20)) },
            FilmView { delivered: Some(at(59)), ..film(42, at(60)) },
            refused,
        ],
        model: Some(ModelView {
            name: HOSTILE.to_owned(),
            version: HOSTILE.to_owned(),
            sha256: "<b>0123456789abcdef".to_owned(),
            backend: HOSTILE.to_owned(),
            accelerator: Some(AcceleratorView { state: AcceleratorWord::Failed, reason: Some(HOSTILE.to_owned()) }),
        }),
        disk: Some(DiskView { free_bytes: 3 << 30, total_bytes: 64 << 30, warn_bytes: 4 << 30, stop_bytes: 1 << 30 }),
        machine: Some(Machine {
            board: Board {
                model: Some(HOSTILE.to_owned()),
                l4t: Some(HOSTILE.to_owned()),
                power_mode: Some(HOSTILE.to_owned()),
                ..Board::default()
            },
            gpus: vec![Gpu { name: Some(HOSTILE.to_owned()), ..Gpu::default() }, Gpu::default()],
            ..hot()
        }),
        pausing: true,
        stages: vec![StageView {
            stage: Stage::Worker,
            busy_for: Some(Duration::from_secs(75)),
            budget: Duration::from_secs(60),
        }],
        ..view
    }
}

/// The names of the elements that are open at each tag must match; yields all tags.
fn tags(page: &str) -> Vec<&str> {
    const VOID: [&str; 6] = ["meta", "link", "img", "!doctype", "br", "input"];
    let mut tags = Vec::new();
    let mut open = Vec::new();
    for piece in page.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').expect("tags close");
        assert!(!text.contains('>'), "a stray > after <{tag}>: {text}");
        let name = tag.split(|c: char| c.is_whitespace()).next().expect("a name");
        match name.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "</{name}>"),
            None if VOID.contains(&name) => {}
            None => open.push(name),
        }
        tags.push(tag);
    }
    assert!(open.is_empty(), "{open:?}");
    tags
}

/// `LANDMARKD_UPDATE_GOLDEN=1` writes the golden page anew; look at the difference before it is committed.
#[test]
fn the_page_is_the_golden_one_with_all_foreign_text_escaped() {
    let page = render(&hostile());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/health/page/golden.html");
    if std::env::var_os("LANDMARKD_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &page).expect("the source tree is writable");
    }
    let golden = std::fs::read_to_string(&path).expect("the golden page");
    for (line, (found, expected)) in std::iter::zip(page.lines(), golden.lines()).enumerate() {
        assert_eq!(found, expected, "line {}", line + 1);
    }
    assert_eq!(page.len(), golden.len());
}

#[test]
fn foreign_text_opens_no_element_and_no_attribute() {
    let plain = |text: &str| text.replace(HOSTILE, "x").replace("<b>", "");
    let mut calm = hostile();
    calm.site = plain(&calm.site);
    calm.device = plain(&calm.device);
    if let Some(model) = &mut calm.model {
        for text in [&mut model.name, &mut model.version, &mut model.sha256, &mut model.backend] {
            *text = plain(text);
        }
        if let Some(AcceleratorView { reason: Some(reason), .. }) = &mut model.accelerator {
            *reason = plain(reason);
        }
    }
    let machine = calm.machine.as_mut().expect("there");
    machine.gpus[0].name = Some("x".to_owned());
    machine.board = Board { model: Some("x".to_owned()), l4t: Some("x".to_owned()), ..Board::default() };
    machine.board.power_mode = Some("x".to_owned());
    let (hostile, calm) = (render(&hostile()), render(&calm));
    assert_eq!(tags(&hostile), tags(&calm));
    assert!(!hostile.contains("<script>"), "{hostile}");
    assert_eq!(hostile.matches("<header").count(), 1, "a place in foreign text is not filled");
}

#[test]
fn nothing_stands_inline_that_the_content_security_policy_forbids() {
    for view in [quiet(), hostile()] {
        let page = render(&view);
        for tag in tags(&page) {
            // Attributes of our own; foreign text never stands in one, as the test above shows.
            assert!(!tag.contains(" style=") && !tag.contains(" on"), "<{tag}>");
            assert!(tag != "style" && tag != "script", "<{tag}>");
            assert!(!tag.contains("http://") && !tag.contains("https://") && !tag.contains("javascript:"), "<{tag}>");
        }
    }
}

#[test]
fn the_frame_has_two_places_and_each_is_filled_once() {
    assert_eq!(FRAME.matches("{{").count(), 2);
    assert_eq!(fill("a{{x}}b{{y}}c", &[("x", "{{y}}"), ("y", "2")]), "a{{y}}b2c");
}

#[test]
fn every_piece_has_a_name_of_its_own() {
    let page = render(&hostile());
    let mut names: Vec<_> = page.split("data-part=\"").skip(1).map(|rest| rest.split('"').next()).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(count >= 10, "{names:?}");
}

#[test]
fn the_state_is_said_in_words_with_what_to_do() {
    let page = render(&hostile());
    for trouble in [Trouble::DiskLow, Trouble::FolderMissing] {
        assert!(page.contains(trouble.words()) && page.contains(trouble.remedy()), "{trouble:?}");
    }
    assert!(page.contains("<p class=\"state bad\" role=\"status\">Degraded</p>"));
    assert!(page.contains("The worker hangs."));
    let calm = render(&quiet());
    assert!(calm.contains("<p class=\"state good\" role=\"status\">Online</p>"));
    assert!(calm.contains("None yet since the start.") && calm.contains("Nothing waits"));
}
