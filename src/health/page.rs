//! The status page: rendered here, so that it works without its script; the script keeps it fresh.

use std::fmt::{self, Write};
use std::time::Duration;

use super::labels::{AcceleratorWord, FilmEnd, FolderWord};
use super::view::{AcceleratorView, DiskView, FilmView, ModelView, QueueView, ServiceWord, StatusView, StepTimes};
use super::words::{Bytes, Escaped, Span, Time};

/// `/page.css`
pub(super) const STYLE: &str = include_str!("page.css");
/// `/page.js`
pub(super) const SCRIPT: &str = include_str!("page.js");
/// `/icon.svg`
pub(super) const ICON: &str = include_str!("icon.svg");
const FRAME: &str = include_str!("page.html");

/// The page at this moment.
///
/// An element with `data-part` is a piece that the script replaces when it has changed.
pub(super) fn render(view: &StatusView) -> String {
    let mut main = String::new();
    body(&mut main, view).expect("a String takes everything");
    let title = Escaped(format!("{}: {} · {}", word(view.word()), view.device, view.site)).to_string();
    fill(FRAME, &[("title", &title), ("main", &main)])
}

/// The frame with its places filled; what is put in is not looked at again.
fn fill(frame: &str, places: &[(&str, &str)]) -> String {
    let mut page = String::new();
    for (piece, text) in frame.split("{{").enumerate() {
        match text.split_once("}}").filter(|_| piece > 0) {
            Some((name, rest)) => {
                let place = places.iter().find(|(known, _)| *known == name);
                page.push_str(place.expect("the frame has no other places, as a test holds").1);
                page.push_str(rest);
            }
            None => page.push_str(text),
        }
    }
    page
}

fn body(to: &mut String, view: &StatusView) -> fmt::Result {
    header(to, view)?;
    troubles(to, view)?;
    to.push_str("<section class=\"tiles\" aria-label=\"Overview\">\n");
    delivery(to, view)?;
    folder(to, view)?;
    model(to, view.model.as_ref())?;
    disk(to, view.disk.as_ref())?;
    if let Some(known) = &view.machine {
        machine::tiles(to, known, view.pausing)?;
    }
    to.push_str("</section>\n");
    films(to, view)
}

const fn word(state: ServiceWord) -> &'static str {
    match state {
        ServiceWord::Starting => "Starting",
        ServiceWord::Online => "Online",
        ServiceWord::Degraded => "Degraded",
        ServiceWord::Stopping => "Stopping",
    }
}

/// The colour of the state, as a class.
fn colour(view: &StatusView) -> &'static str {
    match view.word() {
        ServiceWord::Online => "good",
        ServiceWord::Starting | ServiceWord::Stopping => "idle",
        ServiceWord::Degraded if !view.is_healthy() => "bad",
        ServiceWord::Degraded if view.troubles.iter().any(|trouble| trouble.is_severe()) => "bad",
        ServiceWord::Degraded => "warn",
    }
}

fn header(to: &mut String, view: &StatusView) -> fmt::Result {
    let StatusView { site, device, version, started, .. } = view;
    let (colour, word) = (colour(view), word(view.word()));
    writeln!(
        to,
        "<header data-part=\"header\">\n<h1>{} <span class=\"site\">{}</span></h1>\n\
         <p class=\"state {colour}\" role=\"status\">{word}</p>\n\
         <p class=\"about\">landmarkd {} · running since {}</p>\n</header>",
        Escaped(device),
        Escaped(site),
        Escaped(version),
        Time(*started)
    )
}

fn troubles(to: &mut String, view: &StatusView) -> fmt::Result {
    to.push_str("<section class=\"troubles\" data-part=\"troubles\" aria-label=\"What is wrong\">\n");
    for trouble in &view.troubles {
        let colour = if trouble.is_severe() { "bad" } else { "warn" };
        writeln!(
            to,
            "<article class=\"trouble {colour}\"><h2>{}</h2><p>{}</p></article>",
            Escaped(trouble.words()),
            Escaped(trouble.remedy())
        )?;
    }
    for stage in view.stages.iter().filter(|stage| !stage.is_within_budget()) {
        writeln!(
            to,
            "<article class=\"trouble bad\"><h2>The {} hangs.</h2><p>It is over its budget of {}; the service manager \
             will restart the daemon. Nothing is lost by it.</p></article>",
            Escaped(stage.stage.word()),
            Span(stage.budget)
        )?;
    }
    to.push_str("</section>\n");
    Ok(())
}

/// A tile: its heading, what matters, and a line below.
fn tile(to: &mut String, part: &str, heading: &str, value: impl fmt::Display, below: impl fmt::Display) -> fmt::Result {
    writeln!(
        to,
        "<article class=\"tile\" data-part=\"{part}\"><h2>{heading}</h2><p class=\"value\">{value}</p>\
         <p class=\"below\">{below}</p></article>"
    )
}

fn delivery(to: &mut String, view: &StatusView) -> fmt::Result {
    let QueueView { length, oldest } = view.queue;
    let value = match length {
        0 => "Nothing waits".to_owned(),
        1 => "1 result waits".to_owned(),
        n => format!("{n} results wait"),
    };
    let broker = if view.broker.connected { "connected to the broker" } else { "no connection to the broker" };
    let below = match oldest.filter(|_| length > 0) {
        Some(oldest) => format!("since {} · {broker}", Time(oldest)),
        None => broker.to_owned(),
    };
    tile(to, "delivery", "Delivery", value, below)
}

fn folder(to: &mut String, view: &StatusView) -> fmt::Result {
    let value = match view.folder {
        FolderWord::Starting => "Being looked at",
        FolderWord::Watching => "Watched",
        FolderWord::Polling => "Scanned",
        FolderWord::Missing => "Away",
    };
    let counts = view.counts;
    let below = format!(
        "since the start: {} read, {} refused, {} quarantined",
        counts.accepted, counts.refused, counts.quarantined
    );
    tile(to, "folder", "Acquisition folder", value, below)
}

fn model(to: &mut String, model: Option<&ModelView>) -> fmt::Result {
    let Some(ModelView { name, version, sha256, backend, accelerator }) = model else {
        return tile(to, "model", "Model", "None", "no model serves");
    };
    let short: String = sha256.chars().take(12).collect();
    let value = format!("{} <small>{}</small>", Escaped(name), Escaped(version));
    let accelerator = match accelerator {
        Some(AcceleratorView { state: AcceleratorWord::Preparing, .. }) => " · the GPU is being prepared".to_owned(),
        Some(AcceleratorView {
            state: AcceleratorWord::Absent | AcceleratorWord::Failed | AcceleratorWord::Withheld,
            reason: Some(reason),
        }) => {
            format!(" · not on the GPU: {}", Escaped(reason))
        }
        _ => String::new(),
    };
    tile(to, "model", "Model", value, format!("{} · {}{accelerator}", Escaped(backend), Escaped(short)))
}

fn disk(to: &mut String, disk: Option<&DiskView>) -> fmt::Result {
    let Some(&DiskView { free_bytes, total_bytes, warn_bytes, .. }) = disk else { return Ok(()) };
    let used = total_bytes.saturating_sub(free_bytes);
    let high = total_bytes.saturating_sub(warn_bytes);
    let meter =
        format!("<meter min=\"0\" max=\"{total_bytes}\" high=\"{high}\" optimum=\"0\" value=\"{used}\"></meter>");
    tile(to, "disk", "Disk", format!("{} free", Bytes(free_bytes)), format!("{meter} of {}", Bytes(total_bytes)))
}

fn films(to: &mut String, view: &StatusView) -> fmt::Result {
    to.push_str("<section class=\"films\">\n<h2>Last films</h2>\n");
    if view.films.is_empty() {
        to.push_str("<p class=\"none\" data-part=\"none\">None yet since the start.</p>\n");
    }
    to.push_str("<ol data-list=\"films\">\n");
    for film in &view.films {
        film_item(to, film)?;
    }
    to.push_str("</ol>\n</section>\n");
    Ok(())
}

fn film_item(to: &mut String, film: &FilmView) -> fmt::Result {
    let &FilmView { number, end, finished, delivered, steps, size_px, landmarks, picture, .. } = film;
    let accepted = end == FilmEnd::Accepted;
    write!(to, "<li class=\"film{}\" data-part=\"film-{number}\">", if accepted { "" } else { " refused" })?;
    if picture {
        write!(
            to,
            "<a class=\"picture\" href=\"/overlays/{number}.png\"><img src=\"/overlays/{number}.png\" loading=\"lazy\" \
             alt=\"Film {number} with its landmarks\"></a>"
        )?;
    } else {
        to.push_str("<p class=\"picture\">no picture</p>");
    }
    write!(to, "<h3>Film {number}</h3><p class=\"when\">{}</p>", Time(finished))?;
    if accepted {
        write!(to, "<p class=\"end\">{landmarks} landmarks</p>")?;
    } else {
        write!(to, "<p class=\"end\">{}</p>", Escaped(end.words()))?;
    }
    to.push_str("<dl>");
    if let Some([width, height]) = size_px {
        write!(to, "<dt>size in px</dt><dd>{width}×{height}</dd>")?;
    }
    if let Some(steps) = steps {
        let StepTimes { decode_ms, frame_ms, inference_ms } = steps;
        let ms = |ms: f64| Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default();
        write!(
            to,
            "<dt>read in</dt><dd title=\"decoded in {}, framed in {}, network {}\">{}</dd>",
            Span(ms(decode_ms)),
            Span(ms(frame_ms)),
            Span(ms(inference_ms)),
            Span(ms(steps.total_ms()))
        )?;
    }
    write!(
        to,
        "<dt>ready after</dt><dd title=\"from the acquisition to the durable result\">{}</dd>",
        Span(film.waited())
    )?;
    match delivered {
        Some(at) => write!(to, "<dt>delivered</dt><dd>{}</dd>", Time(at))?,
        None => to.push_str("<dt>delivered</dt><dd class=\"waits\">waits</dd>"),
    }
    to.push_str("</dl></li>\n");
    Ok(())
}

mod machine;
#[cfg(test)]
mod tests;
