//! Which path shows what.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::exposition;
use super::metrics::Metrics;
use super::overlays::Overlays;
use super::page;
use super::process::Process;
use super::response::{Body, Response, Status};
use super::trouble::Trouble;
use super::view::{ServiceWord, StatusView};

/// Puts the view together at this moment. It is called on the runtime, so it must not wait: it reads watches and
/// atomics, never the disk.
pub type Look = Arc<dyn Fn() -> StatusView + Send + Sync>;

/// Everything that is shown.
#[derive(Clone)]
pub struct Health {
    /// The daemon's numbers.
    pub metrics: Arc<Metrics>,
    /// The pictures.
    pub overlays: Arc<Overlays>,
    /// Everything else.
    pub look: Look,
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health")
            .field("metrics", &self.metrics)
            .field("overlays", &self.overlays)
            .finish_non_exhaustive()
    }
}

impl Health {
    /// What stands at `path`.
    pub(super) fn answer(&self, path: &str) -> Response {
        match path {
            "/" => Response::ok("text/html; charset=utf-8", Body::Text(page::render(&(self.look)()))),
            "/page.css" => Response::ok("text/css; charset=utf-8", Body::File(page::STYLE)),
            "/page.js" => Response::ok("text/javascript; charset=utf-8", Body::File(page::SCRIPT)),
            "/icon.svg" => Response::ok("image/svg+xml", Body::File(page::ICON)),
            "/status.json" => Response::ok("application/json", Body::Text(document(&(self.look)()))),
            "/metrics" => {
                let text = self.metrics.text(&(self.look)(), &Process::now());
                Response::ok(exposition::CONTENT_TYPE, Body::Text(text))
            }
            "/healthz" => health(&(self.look)()),
            "/readyz" => readiness(&(self.look)()),
            _ => match picture_number(path).and_then(|number| self.overlays.get(number)) {
                Some(png) => Response::ok("image/png", Body::Picture(png)),
                None => Response::status(Status::NotFound),
            },
        }
    }
}

/// The number in `/overlays/<number>.png`, in the one form in which the page writes it.
fn picture_number(path: &str) -> Option<u64> {
    let digits = path.strip_prefix("/overlays/")?.strip_suffix(".png")?;
    let number: u64 = digits.parse().ok()?;
    (number.to_string() == digits).then_some(number)
}

/// 200 while every stage is idle or within its budget; the slow ones otherwise.
fn health(view: &StatusView) -> Response {
    let slow: Vec<_> = view.stages.iter().filter(|stage| !stage.is_within_budget()).collect();
    if slow.is_empty() {
        return Response::words(Status::Ok, "ok\n".to_owned());
    }
    let lines = slow.iter().map(|stage| {
        let busy_s = stage.busy_for.unwrap_or_default().as_secs();
        format!("{} busy for {busy_s} s, its budget is {} s\n", stage.stage.word(), stage.budget.as_secs())
    });
    Response::words(Status::ServiceUnavailable, lines.collect())
}

/// 200 while films can be taken; what stops them otherwise.
fn readiness(view: &StatusView) -> Response {
    if view.is_ready() {
        return Response::words(Status::Ok, "ready\n".to_owned());
    }
    let stopping = view.stopping.then_some("stopping");
    let troubles = view.troubles.iter().filter(|trouble| trouble.stops_films()).map(|trouble| trouble.word());
    let mut why: Vec<_> = stopping.into_iter().chain(troubles).collect();
    if why.is_empty() {
        why.push(view.folder.word());
    }
    Response::words(Status::ServiceUnavailable, format!("not ready: {}\n", why.join(", ")))
}

#[derive(Serialize)]
struct Document<'a> {
    state: ServiceWord,
    ready: bool,
    healthy: bool,
    advice: Vec<Advice>,
    #[serde(flatten)]
    view: &'a StatusView,
}

#[derive(Serialize)]
struct Advice {
    reason: Trouble,
    what: &'static str,
    remedy: &'static str,
}

fn document(view: &StatusView) -> String {
    let advice = view.troubles.iter().map(|&reason| Advice { reason, what: reason.words(), remedy: reason.remedy() });
    let document = Document {
        state: view.word(),
        ready: view.is_ready(),
        healthy: view.is_healthy(),
        advice: advice.collect(),
        view,
    };
    serde_json::to_string(&document).expect("the view has string keys and no maps")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::films::tests::film;
    use super::super::labels::{FolderWord, Stage};
    use super::super::view::tests::quiet;
    use super::super::view::{QueueView, StageView};
    use super::*;

    fn showing(view: StatusView) -> Health {
        let overlays = Arc::new(Overlays::new(20, 1000));
        overlays.keep(12, b"picture".to_vec());
        Health { metrics: Arc::default(), overlays, look: Arc::new(move || view.clone()) }
    }

    fn text(response: &Response) -> String {
        String::from_utf8(response.body.bytes().to_vec()).expect("text")
    }

    #[test]
    fn every_path_has_its_type_and_others_are_not_found() {
        let health = showing(quiet());
        for (path, content_type) in [
            ("/", "text/html; charset=utf-8"),
            ("/page.css", "text/css; charset=utf-8"),
            ("/page.js", "text/javascript; charset=utf-8"),
            ("/icon.svg", "image/svg+xml"),
            ("/status.json", "application/json"),
            ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
            ("/healthz", "text/plain; charset=utf-8"),
            ("/readyz", "text/plain; charset=utf-8"),
            ("/overlays/12.png", "image/png"),
        ] {
            let response = health.answer(path);
            assert_eq!((response.status, response.content_type), (Status::Ok, content_type), "{path}");
        }
        for path in [
            "/overlays/13.png",
            "/overlays/012.png",
            "/overlays/+12.png",
            "/overlays/12.PNG",
            "/overlays/../12.png",
            "/overlays/99999999999999999999.png",
            "/overlays/",
            "/metrics/",
            "//",
            "*",
            "/etc/passwd",
        ] {
            assert_eq!(health.answer(path).status, Status::NotFound, "{path}");
        }
    }

    #[test]
    fn health_names_the_stage_that_hangs_and_its_budget() {
        let mut view = quiet();
        assert_eq!(text(&showing(view.clone()).answer("/healthz")), "ok\n");
        let (busy_for, budget) = (Some(Duration::from_secs(75)), Duration::from_secs(60));
        view.stages.push(StageView { stage: Stage::Store, busy_for, budget });
        let response = showing(view).answer("/healthz");
        assert_eq!(response.status, Status::ServiceUnavailable);
        assert_eq!(text(&response), "store busy for 75 s, its budget is 60 s\n");
    }

    #[test]
    fn readiness_leaves_the_broker_out() {
        let broker = StatusView { troubles: [Trouble::BrokerAway, Trouble::Rejected].into(), ..quiet() };
        assert_eq!(text(&showing(broker).answer("/readyz")), "ready\n");
        for (view, expected) in [
            (
                StatusView { troubles: [Trouble::BrokerAway, Trouble::DiskFull].into(), stopping: true, ..quiet() },
                "not ready: stopping, disk_full\n",
            ),
            (StatusView { folder: FolderWord::Starting, ..quiet() }, "not ready: starting\n"),
        ] {
            let response = showing(view).answer("/readyz");
            assert_eq!((response.status, text(&response).as_str()), (Status::ServiceUnavailable, expected));
        }
    }

    #[test]
    fn the_document_says_state_reasons_and_films_in_plain_values() {
        let view = quiet();
        let time = view.time;
        let view = StatusView {
            troubles: [Trouble::NoSubscriber].into(),
            queue: QueueView { length: 3, oldest: Some(time - Duration::from_secs(60)) },
            films: vec![film(12, time)],
            ..view
        };
        let document: serde_json::Value =
            serde_json::from_str(&text(&showing(view).answer("/status.json"))).expect("JSON");
        for (pointer, expected) in [
            ("/state", serde_json::json!("degraded")),
            ("/ready", true.into()),
            ("/healthy", true.into()),
            ("/reasons", serde_json::json!(["no_subscriber"])),
            ("/advice/0/what", "Nobody is subscribed to the results.".into()),
            ("/folder", "watching".into()),
            ("/queue/length", 3.into()),
            ("/queue/oldest", "2026-11-18T11:05:40.000Z".into()),
            ("/films/0/number", 12.into()),
            ("/films/0/end", "accepted".into()),
            ("/films/0/delivered", serde_json::Value::Null),
            ("/films/0/steps/inference_ms", 655.0.into()),
            ("/stages/0", serde_json::json!({"stage": "worker", "busy_ms": null, "budget_ms": 60000})),
            ("/model", serde_json::Value::Null),
        ] {
            assert_eq!(document.pointer(pointer), Some(&expected), "{pointer}");
        }
    }
}
