//! What `landmarkd model` says, for people and as JSON.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use crate::model::{Activation, BundleId, Claim, Installed, Passed, Previous, Receipt, Selection};

/// Something to say in two forms.
pub(super) trait Report: Serialize {
    /// For people; ends with a line break.
    fn text(&self) -> String;
}

/// Of `install`.
#[derive(Debug, Serialize)]
pub(super) struct InstallReport {
    #[serde(flatten)]
    id: BundleId,
    directory: PathBuf,
    already_installed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<Receipt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    activation: Option<ActivationReport>,
}

/// Of `list`.
#[derive(Debug, Serialize)]
pub(super) struct ListReport {
    active: Option<BundleId>,
    previous: Option<Previous>,
    installed: Vec<Listed>,
}

#[derive(Debug, Serialize)]
struct Listed {
    #[serde(flatten)]
    id: BundleId,
    directory: PathBuf,
    receipt: Option<Receipt>,
}

/// Of `activate` and `rollback`.
#[derive(Debug, Serialize)]
pub(super) struct ActivationReport {
    active: BundleId,
    previous: Option<Previous>,
    removed: Vec<BundleId>,
}

/// Of `verify`.
#[derive(Debug, Serialize)]
pub(super) struct VerifyReport {
    #[serde(flatten)]
    id: BundleId,
    path: PathBuf,
    /// `null` where only the digests could be checked.
    signed_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    archive_sha256: Option<String>,
}

impl InstallReport {
    pub(super) fn new(installed: &Installed, already_installed: bool, activation: Option<&Activation>) -> Self {
        let Installed { id, directory, receipt } = installed.clone();
        let activation = activation.map(|done| ActivationReport::new(&done.selection, &done.removed));
        Self { id, directory, already_installed, receipt, activation }
    }
}

impl Report for InstallReport {
    fn text(&self) -> String {
        let Self { id, directory, already_installed, receipt, activation } = self;
        let place = directory.display();
        let mut text = if *already_installed {
            format!("{id} was installed already in {place}\n")
        } else {
            format!("{id} is installed in {place}\n")
        };
        if let Some(Receipt { signed_by, self_test: Passed { off_px, backend }, .. }) = receipt {
            line(&mut text, format_args!("signed by {signed_by}; self-test within {off_px:.3} px on {backend}"));
        }
        match activation {
            Some(activation) => text + &activation.text(),
            None => {
                line(
                    &mut text,
                    format_args!("to let it serve: landmarkd model activate {} {}", id.name(), id.version()),
                );
                text
            }
        }
    }
}

impl ListReport {
    pub(super) fn new(selection: Option<&Selection>, installed: &[Installed]) -> Self {
        let listed = |installed: &Installed| {
            let Installed { id, directory, receipt } = installed.clone();
            Listed { id, directory, receipt }
        };
        Self {
            active: selection.map(|selection| selection.active.clone()),
            previous: selection.and_then(|selection| selection.previous.clone()),
            installed: installed.iter().map(listed).collect(),
        }
    }

    fn role(&self, id: &BundleId) -> &'static str {
        match &self.previous {
            _ if self.active.as_ref() == Some(id) => "active",
            Some(Previous { bundle, fault }) if bundle == id => {
                if fault.is_some() {
                    "out of service"
                } else {
                    "previous"
                }
            }
            _ => "",
        }
    }
}

impl Report for ListReport {
    fn text(&self) -> String {
        if self.installed.is_empty() {
            return "no bundle is installed; the one of the configuration or the package serves\n".to_owned();
        }
        let longest = |of: fn(&Listed) -> usize| self.installed.iter().map(of).max().unwrap_or(0);
        let (name, version) = (longest(|listed| listed.id.name().len()), longest(|listed| listed.id.version().len()));
        let (name, version) = (name.max(4), version.max(7));
        let mut text = String::new();
        line(
            &mut text,
            format_args!("{:name$}  {:version$}  {:14}  {:20}  signed by", "name", "version", "", "installed"),
        );
        for Listed { id, receipt, .. } in &self.installed {
            let (at, by) = receipt.as_ref().map_or_else(
                || ("unknown".to_owned(), "unknown; install it again"),
                |receipt| (date(receipt.installed_unix_s), receipt.signed_by.as_str()),
            );
            let role = self.role(id);
            line(&mut text, format_args!("{:name$}  {:version$}  {role:14}  {at:20}  {by}", id.name(), id.version()));
        }
        if let Some(Previous { bundle, fault: Some(fault) }) = &self.previous {
            line(&mut text, format_args!("{bundle} was taken out of service because {fault}"));
        }
        if self.active.is_none() {
            text.push_str("none is active: landmarkd model activate NAME VERSION\n");
        }
        text
    }
}

impl ActivationReport {
    pub(super) fn new(selection: &Selection, removed: &[BundleId]) -> Self {
        let Selection { active, previous, .. } = selection.clone();
        Self { active, previous, removed: removed.to_vec() }
    }
}

impl Report for ActivationReport {
    fn text(&self) -> String {
        let Self { active, previous, removed } = self;
        let mut text =
            format!("{active} serves from the daemon's next start on: systemctl reload-or-restart landmarkd\n");
        match previous {
            Some(Previous { bundle, fault: None }) => line(&mut text, format_args!("{bundle} is kept to go back to")),
            Some(Previous { bundle, fault: Some(fault) }) => {
                line(&mut text, format_args!("{bundle} is kept, out of service because {fault}"));
            }
            None => {}
        }
        for id in removed {
            line(&mut text, format_args!("{id} was removed"));
        }
        text
    }
}

impl VerifyReport {
    pub(super) fn of_archive(path: &Path, claim: &Claim, sha256: String) -> Self {
        let Claim { id, signed_by } = claim.clone();
        Self { id, path: path.to_owned(), signed_by: Some(signed_by), archive_sha256: Some(sha256) }
    }

    pub(super) fn of_directory(path: &Path, id: &BundleId) -> Self {
        Self { id: id.clone(), path: path.to_owned(), signed_by: None, archive_sha256: None }
    }
}

impl Report for VerifyReport {
    fn text(&self) -> String {
        let Self { id, path, signed_by, .. } = self;
        let path = path.display();
        match signed_by {
            Some(key) => format!("{path} is {id}, signed by {key}, and every file is the one its manifest names\n"),
            None => format!("{path} is {id}; every file is the one its manifest names, a directory has no signature\n"),
        }
    }
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(text, "{arguments}").expect("writing to a string");
}

fn date(unix_s: u64) -> String {
    // humantime panics beyond the year 9999.
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(unix_s.min(253_402_300_799))).to_string()
}
