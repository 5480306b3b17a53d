//! `doctor`: what would fail tonight, found now.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use stackkit::backup::{Capabilities, DumpContext, Repository, RepositoryOptions};
use stackkit::health::{ServiceReport, Severity};
use stackkit::process::{Tool, find_tool};
use stackkit::{BackupProvider, Error, ErrorKind, Result, Secret, Service, Stack};
use tokio::time::timeout;

use crate::cli::DoctorArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::keys;
use crate::output::Output;

/// How long a tool may take to print its version: one line, perhaps from a slow disk.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long opening a dump may take: its contract says 1 s on an idle server.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(30);
/// The vendor tools that an adapter runs, by kind of service; one that is not here needs none.
const TOOLS: [(&str, &[&str]); 1] = [("postgresql", &["pg_dump"])];
/// Where Debian and its kin keep the tools of each version; the last folder is the newest.
const POSTGRES_VERSIONS: &str = "/usr/lib/postgresql";

/// From which difference of two clocks on logs, expiry times and the order of backups mislead. Synchronised clocks
/// differ by milliseconds.
const CLOCK_SKEW_SECONDS_MAX: f64 = 1.0;
/// Bytes in a GiB.
const GIB: f64 = 1_073_741_824.0;

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    /// `service`, `backup`, `tool`, `clock`, `repository`.
    check: &'static str,
    /// Of what: a service's id, a tool's name.
    subject: String,
    is_ok: bool,
    message: String,
}

impl Finding {
    fn new(check: &'static str, subject: impl Into<String>, outcome: Result<String>) -> Self {
        let is_ok = outcome.is_ok();
        // The error's own facts only: a driver's text belongs to logs.
        let message = outcome.unwrap_or_else(|error| error.to_string());
        Self { check, subject: subject.into(), is_ok, message }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.is_ok { "ok" } else { "FAULT" };
        write!(f, "{sign:<6} {:<11} {:<16} {}", self.check, self.subject, self.message)
    }
}

/// Looks at everything; 1 if anything is at fault.
pub(crate) async fn doctor(stack: &Stack, repository: Option<&Secret>, args: &DoctorArgs, out: &Output) -> Outcome {
    let options = keys::reading(&args.read).await?;
    let report = stack.check_now(&[]).await;
    let mut findings: Vec<Finding> = report.services.iter().map(|report| probed("service", report)).collect();
    findings.extend(report.services.iter().filter_map(|service| clock(service)));
    for service in stack.services() {
        findings.extend(backup(service.as_ref()).await);
        findings.extend(tools(service.kind()).await);
    }
    if let Some(url) = repository {
        findings.extend(stored(url.expose(), options, stack).await.map_err(Failure::usage)?);
    }
    for finding in &findings {
        out.result(finding, finding).map_err(Failure::usage)?;
    }
    Ok(if findings.iter().all(|finding| finding.is_ok) { Exit::Done } else { Exit::No })
}

/// What a probe saw: the version, or why there is none; findings that are worth acting on.
fn probed(check: &'static str, report: &ServiceReport) -> Finding {
    let seen = report.observation.as_deref();
    let bad = seen.iter().flat_map(|seen| &seen.findings).filter(|finding| finding.severity > Severity::Info);
    let bad: Vec<String> = bad.map(|finding| format!("{} [{}]", finding.message, finding.code)).collect();
    let facts = seen.iter().flat_map(|seen| &seen.info).map(|(name, value)| format!("{name} {value}"));
    let message = match &report.failure {
        Some(failure) => failure.message.clone(),
        None if bad.is_empty() => facts.collect::<Vec<_>>().join(", "),
        None => bad.join("; "),
    };
    Finding { check, subject: report.id.to_string(), is_ok: report.failure.is_none() && bad.is_empty(), message }
}

/// How far the server's clock is from ours, where the probe can tell.
fn clock(report: &ServiceReport) -> Option<Finding> {
    let skew_seconds = report.observation.as_ref()?.value("clock_skew_seconds")?;
    let way = if skew_seconds < 0.0 { "behind" } else { "ahead of" };
    let message = format!("{:.3} s {way} this machine's", skew_seconds.abs());
    let is_ok = skew_seconds.abs() <= CLOCK_SKEW_SECONDS_MAX;
    Some(Finding { check: "clock", subject: report.id.to_string(), is_ok, message })
}

/// Whether a dump could begin now: that needs the tools, the rights and the right versions. It is opened and dropped.
async fn backup(service: &dyn Service) -> Option<Finding> {
    let provider = service.backup_provider()?;
    let begun = timeout(BEGIN_TIMEOUT, begin(provider)).await;
    let late = || Err(Error::new(ErrorKind::Timeout, format!("no dump could begin in {BEGIN_TIMEOUT:?}")));
    Some(Finding::new("backup", service.id().as_str(), begun.unwrap_or_else(|_elapsed| late())))
}

async fn begin(provider: &dyn BackupProvider) -> Result<String> {
    let dump = provider.begin(&DumpContext::new()).await?;
    Ok(match &dump.point().position {
        Some(position) => format!("a dump can begin, at {position}"),
        None => "a dump can begin".to_owned(),
    })
}

async fn tools(kind: &str) -> Vec<Finding> {
    let names = TOOLS.iter().find(|(needing, _)| *needing == kind).map_or(&[][..], |(_, names)| names);
    let mut findings = Vec::new();
    for name in names {
        findings.push(Finding::new("tool", *name, version(name).await));
    }
    findings
}

async fn version(name: &str) -> Result<String> {
    let path = find_tool(name, &versioned_folders(POSTGRES_VERSIONS))?;
    let output = Tool::new(&path).arg("--version").output(VERSION_TIMEOUT).await?;
    Ok(format!("{}, {}", String::from_utf8_lossy(&output).trim(), path.display()))
}

/// `parent/*/bin`, the newest version first. None if the parent can't be read: then `PATH` is all there is.
fn versioned_folders(parent: &str) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path().join("bin")).collect();
    folders.sort();
    folders.reverse();
    folders
}

/// The repository: whether it is one, whether it can be written and has room, and what the newest backup says.
async fn stored(url: &str, options: RepositoryOptions, stack: &Stack) -> Result<Vec<Finding>> {
    let opened = Repository::open(url, options).await;
    let repository = match opened {
        Ok(repository) => repository,
        Err(error) if error.kind() == ErrorKind::Config => return Err(error),
        Err(error) => return Ok(vec![Finding::new("repository", "open", Err(error))]),
    };
    let found = Finding::new("repository", "open", Ok(format!("id {}", repository.id())));
    let mut findings = vec![found];
    if is_local(url) {
        findings.push(room(url).await?);
    }
    findings.push(Finding::new("repository", "storage", Ok(capabilities(repository.capabilities()))));
    findings.push(Finding::new(
        "repository",
        "recipients",
        Ok(joined(repository.recorded_recipients(), "not encrypted")),
    ));
    findings.push(Finding::new("repository", "signers", Ok(joined(repository.recorded_signers(), "not signed"))));
    findings.push(newest(&repository, stack).await);
    Ok(findings)
}

fn is_local(url: &str) -> bool {
    url.starts_with('/') || url.starts_with("file:")
}

/// What the storage could do when the repository was made.
fn capabilities(found: Capabilities) -> String {
    let named = [
        (found.put_if_absent, "put-if-absent"),
        (found.compare_and_swap, "compare-and-swap"),
        (found.versioning, "versioning"),
        (found.object_lock, "object lock"),
    ];
    let there: Vec<&str> = named.into_iter().filter(|(is_there, _)| *is_there).map(|(_, name)| name).collect();
    joined(&there, "nothing beyond reading and writing")
}

fn joined<T: fmt::Display>(values: &[T], none: &str) -> String {
    match values.is_empty() {
        true => none.to_owned(),
        false => values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// A folder that holds a repository is a volume too: its probe knows about room and the right to write.
async fn room(url: &str) -> Result<Finding> {
    let url = if url.starts_with('/') { format!("file://{url}") } else { url.to_owned() };
    let volume = Stack::builder("repository").service(stackkit::service(&url)?).build()?;
    let report = volume.check_now(&[]).await;
    let report = report.services.first().ok_or_else(|| Error::unexpected("a volume without a health check"))?;
    let available = report.observation.as_ref().and_then(|seen| seen.value("available_bytes"));
    let finding = probed("repository", report);
    Ok(match available.filter(|_| finding.is_ok) {
        Some(bytes) => {
            let message = format!("writable, {:.1} GiB available", bytes / GIB);
            Finding { subject: "room".to_owned(), message, ..finding }
        }
        None => Finding { subject: "room".to_owned(), ..finding },
    })
}

/// The age of the newest backup. One from the future means that two clocks differ.
async fn newest(repository: &Repository, stack: &Stack) -> Finding {
    let outcome = match repository.latest(stack.name()).await {
        Ok(id) => {
            let age = stack.clock().now().duration_since(id.time());
            match age.is_negative() {
                true => Err(Error::config("the newest backup is of the future: set the clocks of the backup machines")),
                false => Ok(format!("{id}, {} h old", age.as_hours())),
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok("there is none yet".to_owned()),
        Err(error) => Err(error),
    };
    Finding::new("repository", "latest", outcome)
}
