//! The folder itself goes, comes back and is replaced, and its events are lost.

use super::*;

#[tokio::test]
async fn a_missing_folder_is_told_and_heals_by_itself() {
    let parent = temporary();
    let path = parent.path().join("not-yet");
    let mut station = Station::start(parent, |s| {
        s.folder = path.clone();
        s.rescan = Duration::from_millis(5);
    });
    station.state(|state| matches!(state, FolderState::Missing { .. })).await;
    fs::create_dir(&path).expect("writable");
    station.watching().await;
    station.write("not-yet/film", &jpeg("film"));
    station.takes(&jpeg("film")).await;
    fs::remove_dir_all(&path).expect("removable");
    station.state(|state| matches!(state, FolderState::Missing { .. })).await;
    fs::create_dir(&path).expect("writable");
    station.watching().await;
    station.write("not-yet/next", &jpeg("next"));
    station.takes(&jpeg("next")).await;
    assert!(station.heard(FolderFault::Missing) >= 2, "counted each time, however seldom it is logged");
}

#[tokio::test]
async fn a_folder_replaced_by_another_is_watched_at_once() {
    let parent = temporary();
    let path = parent.path().join("folder");
    fs::create_dir(&path).expect("writable");
    let mut station = Station::start(parent, |s| s.folder = path.clone());
    station.watching().await;
    let before = station.progress.borrow().rounds;
    let other = station.path("other");
    fs::create_dir(&other).expect("writable");
    fs::write(other.join("film"), jpeg("film")).expect("writable");
    // In one step: at no moment is there no folder.
    rustix::fs::renameat_with(rustix::fs::CWD, &other, rustix::fs::CWD, &path, rustix::fs::RenameFlags::EXCHANGE)
        .expect("exchangeable");
    station.progress(|p| p.rounds > before).await;
    station.takes(&jpeg("film")).await;
    station.write("folder/next", &jpeg("next"));
    station.takes(&jpeg("next")).await;
}

#[tokio::test]
async fn a_film_whose_event_was_lost_in_an_overflow_is_found_at_once() {
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("Linux");
    let limit: usize = limit.trim().parse().expect("a number");
    if limit > 100_000 {
        println!("skipped: {limit} events fit into the queue here");
        return;
    }
    let mut station = Station::start(temporary(), |_| {});
    station.watching().await;
    let before = station.progress.borrow().rounds;
    // The task shares this thread and reads no event until the film is there. Each write makes two: created, closed.
    let [a, b] = [station.path("a.tmp"), station.path("b.tmp")];
    fs::write(&a, b"").expect("writable");
    for _ in 0..=limit / 2 {
        fs::rename(&a, &b).expect("renamable");
        fs::rename(&b, &a).expect("renamable");
    }
    station.write("film", &jpeg("film"));
    station.takes(&jpeg("film")).await;
    assert!(station.progress.borrow().rounds > before, "the scan found it");
}
