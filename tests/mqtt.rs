//! The publisher against a real Mosquitto: what no broker of ours could prove.

#[path = "support/device.rs"]
#[expect(dead_code, reason = "restarts and large films are for the tests of a broker that fails")]
mod device;
#[path = "support/mosquitto.rs"]
#[expect(dead_code, reason = "other tests stop it, and let its certificates expire")]
mod mosquitto;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use device::{ALL, Device, ERROR, INFO, RESULT, STATUS, film, next_on, sequence, status_with};
use landmarkd::config::{CredentialSettings, TlsSettings};
use landmarkd::mqtt::Hold;
use landmarkd::report::schema;
use mosquitto::{Authority, Mosquitto};
use serde_json::{Value, json};

fn write_private(path: &Path, content: &str) -> PathBuf {
    fs::write(path, content).expect("writable");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("ours");
    path.to_owned()
}

#[tokio::test]
async fn events_reach_a_persistent_session_in_order_and_as_the_schema_says() {
    let Some(broker) = Mosquitto::start(|_| String::new()) else { return };
    let session = ["-c", "-x", "3600", "-i", "archive"];
    let mut subscriber = broker.subscribe(ALL, &session).await;
    let device = Device::new(broker.port());
    let running = device.run();
    device.append(0);
    device.append_error(1);
    let schemas = schema();
    let valid = |schema: &Value, document: &Value| jsonschema::validate(schema, document).map_err(|e| e.to_string());
    assert_eq!(valid(&schemas.status, &next_on(&mut subscriber, STATUS).await), Ok(()));
    assert_eq!(valid(&schemas.info, &next_on(&mut subscriber, INFO).await), Ok(()));
    let result = next_on(&mut subscriber, RESULT).await;
    assert_eq!(valid(&schemas.result, &result), Ok(()));
    assert_eq!(result["data"], serde_json::to_value(film(0)).expect("JSON"));
    let error = next_on(&mut subscriber, ERROR).await;
    assert_eq!(valid(&schemas.error, &error), Ok(()));
    assert_eq!((sequence(&result), sequence(&error)), (1, 2));

    drop(subscriber);
    for n in 2..22 {
        device.append(n);
    }
    running.stop().await;
    assert!(device.outbox.is_empty().expect("readable"), "a persistent session is a subscriber");
    let mut subscriber = broker.subscribe(ALL, &session).await;
    for expected in 3..=22 {
        assert_eq!(sequence(&next_on(&mut subscriber, RESULT).await), expected);
    }
}

#[tokio::test]
async fn reason_16_holds_a_result_until_somebody_subscribes() {
    let Some(broker) = Mosquitto::start(|_| String::new()) else { return };
    let mut status = broker.subscribe(STATUS, &[]).await;
    let device = Device::new(broker.port());
    device.append(0);
    let mut running = device.run();
    running.until("held", |link| link.hold == Some(Hold::NoSubscriber { alarm: false })).await;
    status_with(&mut status, |status| status["reasons"] == json!(["no_subscriber"])).await;
    assert_eq!(device.outbox.len().expect("readable"), 1);
    let mut results = broker.subscribe(RESULT, &[]).await;
    assert_eq!(sequence(&next_on(&mut results, RESULT).await), 1);
    status_with(&mut status, |status| status["state"] == "online" && status["queue_length"] == 0).await;
    running.stop().await;
}

#[tokio::test]
async fn a_topic_the_access_list_denies_is_told_and_the_others_flow() {
    let acl = |directory: &Path| {
        let path = directory.join("acl");
        let topics = ["status", "info", "error"].map(|last| format!("topic write xr/v1/clinic/ceph-1/{last}\n"));
        fs::write(&path, format!("topic read #\n{}", topics.concat())).expect("writable");
        format!("acl_file {}", path.display())
    };
    let Some(broker) = Mosquitto::start(acl) else { return };
    let mut subscriber = broker.subscribe(ALL, &[]).await;
    let device = Device::new(broker.port());
    device.append(0);
    device.append_error(1);
    let mut running = device.run();
    assert_eq!(sequence(&next_on(&mut subscriber, ERROR).await), 2);
    running.until("rejected", |link| link.hold == Some(Hold::Rejected { code: 135 })).await;
    running.stop().await;
    assert_eq!(device.outbox.len().expect("readable"), 1);
}

#[tokio::test]
async fn the_password_is_read_again_when_the_broker_refuses_it() {
    let passwords = |directory: &Path| {
        let path = directory.join("passwords");
        let made = Command::new("mosquitto_passwd").args(["-b", "-c"]).arg(&path).args(["device", "right"]).status();
        assert!(made.expect("part of mosquitto").success());
        format!("allow_anonymous false\npassword_file {}", path.display())
    };
    let Some(broker) = Mosquitto::start(passwords) else { return };
    let mut device = Device::new(broker.port());
    let home = tempfile::tempdir().expect("a directory");
    let password_file = write_private(&home.path().join("password"), "wrong\n");
    device.settings.credentials =
        Some(CredentialSettings { username: "device".to_owned(), password_file: password_file.clone() });
    let mut running = device.run();
    let refused = running.until("refused", |link| link.error.is_some()).await.error.expect("refused");
    assert!(refused.contains("NotAuthorized") && !refused.contains("wrong"), "{refused}");
    write_private(&password_file, "right\n");
    running.until("connected", |link| link.connected).await;
    running.stop().await;
}

#[tokio::test]
async fn tls_connects_to_a_broker_our_authority_signed_and_to_no_other() {
    let home = tempfile::tempdir().expect("a directory");
    let ours = Authority::new(home.path(), "ours");
    let theirs = Authority::new(home.path(), "theirs");
    let tls = |_: &Path| {
        format!(
            "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true",
            ours.ca.display(),
            ours.certificate.display(),
            ours.key.display()
        )
    };
    let Some(broker) = Mosquitto::start(tls) else { return };
    let with = |ca: &Path, client: Option<&Authority>| {
        let mut device = Device::new(broker.port());
        let client = client.map(|client| (client.certificate.clone(), client.key.clone()));
        device.settings.tls = Some(TlsSettings { ca_file: Some(ca.to_owned()), client });
        device
    };
    for (what, device, reason) in [
        ("a broker of another authority", with(&theirs.ca, Some(&ours)), "UnknownIssuer"),
        ("a client of another authority", with(&ours.ca, Some(&theirs)), ""),
        ("a client without a certificate", with(&ours.ca, None), ""),
    ] {
        let mut running = device.run();
        let refused = running.until("refused", |link| link.error.is_some()).await;
        assert!(!refused.connected && refused.error.is_some_and(|words| words.contains(reason)), "{what}");
        running.stop().await;
    }
    let device = with(&ours.ca, Some(&ours));
    let mut running = device.run();
    running.until("connected", |link| link.connected).await;
    running.stop().await;
}

#[tokio::test]
async fn a_device_that_dies_is_offline_by_its_last_will() {
    let Some(broker) = Mosquitto::start(|_| String::new()) else { return };
    let mut status = broker.subscribe(STATUS, &[]).await;
    let device = Device::new(broker.port());
    let running = device.run();
    let birth = status_with(&mut status, |status| status["state"] == "online").await;
    running.task.abort();
    let will = status_with(&mut status, |status| status["state"] == "offline").await;
    assert_eq!((&will["session"], &will["boot_id"]), (&birth["session"], &birth["boot_id"]));
    let mut late = broker.subscribe(STATUS, &[]).await;
    assert_eq!(next_on(&mut late, STATUS).await["state"], "offline", "it is retained");
}

/// Mosquitto acknowledges before it saves (its issue 1855): what it queues for a session that is away is lost when it
/// dies in between, whatever the publisher does. So it is killed while the session is there and has nearly all.
#[tokio::test]
async fn three_hundred_results_survive_a_broker_that_is_killed_again_and_again() {
    const RESULTS: usize = 300;
    const AHEAD: usize = 5;
    let Some(mut broker) = Mosquitto::start(|_| String::new()) else { return };
    let mut subscriber = broker.subscribe(RESULT, &["-c", "-x", "3600", "-i", "archive"]).await;
    let device = Device::new(broker.port());
    let mut running = device.run();
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let mut kills = [30, 100, 170, 240].into_iter().peekable();
    let mut films = 0..RESULTS;
    films.by_ref().take(AHEAD).for_each(|n| device.append(n));
    while seen.len() < RESULTS {
        let event = next_on(&mut subscriber, RESULT).await;
        if seen.insert(event["id"].as_str().expect("an event").to_owned()) {
            found.push(sequence(&event) as usize);
            films.by_ref().take(1).for_each(|n| device.append(n));
        }
        if kills.next_if(|&n| seen.len() >= n).is_some() {
            broker.restart();
        }
    }
    assert_eq!(found, (1..=RESULTS).collect::<Vec<_>>());
    let sessions = running.until("connected", |link| link.connected).await.session;
    assert!(sessions > 4, "the kills were felt: {sessions} sessions");
    running.stop().await;
}
