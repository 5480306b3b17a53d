//! `backup` and `list`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use stackkit::backup::{BackupEntry, EntryState, Progress, ProgressEvent, Repository, RepositoryOptions};
use stackkit::{Error, Secret, ServiceId, Stack};

use crate::cli::BackupArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{Bytes, Output};

/// Backs up all services; 3 if the caller allowed a service to fail, and one did.
pub(crate) async fn backup(stack: &Stack, url: &Secret, args: &BackupArgs, out: &Output) -> Outcome {
    if !args.unencrypted {
        let message = "this version has no encryption: say --unencrypted to store the backup without it";
        return Err(Failure::usage(Error::config(message)));
    }
    let options = RepositoryOptions::new().unencrypted();
    let repository = Repository::open_or_create(url.expose(), options).await.map_err(Failure::repository)?;
    let progress = Arc::new(Steps { out: out.clone(), bytes: Mutex::default() });
    let mut run = repository.backup(stack).with_progress(progress);
    for tag in &args.tags {
        run = run.with_tag(tag);
    }
    if args.partial {
        run = run.partial();
    }
    let backup = run.run().await.map_err(Failure::repository)?;
    out.result(&backup, backup.manifest()).map_err(Failure::usage)?;
    Ok(if backup.is_partial() { Exit::Service } else { Exit::Done })
}

/// Lists backups, newest first: those of `stack`, or of every stack.
pub(crate) async fn list(url: &Secret, stack: Option<&str>, all: bool, out: &Output) -> Outcome {
    let repository = open(url).await?;
    let entries = if all { repository.list_all().await } else { repository.list().await };
    let entries = entries.map_err(Failure::repository)?;
    for entry in entries.iter().filter(|entry| stack.is_none_or(|stack| entry.stack == stack)) {
        out.result(entry, &row(entry)).map_err(Failure::usage)?;
    }
    Ok(Exit::Done)
}

/// Opens a repository to read from it.
///
/// # Errors
/// Usage for a URL that names none, else the repository's.
pub(crate) async fn open(url: &Secret) -> Outcome<Repository> {
    Repository::open(url.expose(), RepositoryOptions::new()).await.map_err(Failure::repository)
}

fn row(entry: &BackupEntry) -> Value {
    let mut row = json!({ "id": entry.id, "stack": entry.stack });
    match &entry.state {
        EntryState::Ready(manifest) => {
            row["state"] = json!(manifest.status);
            row["started"] = json!(manifest.started);
            row["finished"] = json!(manifest.finished);
            row["tags"] = json!(manifest.tags);
            row["services"] = manifest.services.iter().map(|service| service.id.as_str()).collect();
            row["plain_bytes"] = manifest.artifacts().map(|(_, artifact)| artifact.plain.bytes).sum::<u64>().into();
            row["stored_bytes"] = manifest.artifacts().map(|(_, artifact)| artifact.stored.bytes).sum::<u64>().into();
        }
        EntryState::Damaged(error) => {
            row["state"] = "damaged".into();
            row["error"] = error.to_string().into();
        }
        _ => row["state"] = "incomplete".into(),
    }
    row
}

/// Tells the steps of a backup.
struct Steps {
    out: Output,
    /// Plain bytes of each artifact until now.
    bytes: Mutex<BTreeMap<(ServiceId, String), u64>>,
}

impl Progress for Steps {
    fn event(&self, event: &ProgressEvent) {
        match event {
            ProgressEvent::Pinned { service } => {
                self.step(
                    format_args!("{service}: point in time pinned"),
                    json!({ "step": "pinned", "service": service }),
                );
            }
            ProgressEvent::Written { service, artifact, plain_bytes, .. } => {
                let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
                bytes.insert((service.clone(), artifact.to_string()), *plain_bytes);
                let now: Vec<String> = bytes
                    .iter()
                    .map(|((service, name), bytes)| format!("{service}/{name} {}", Bytes(*bytes)))
                    .collect();
                self.out.moving(&now.join("  "));
            }
            ProgressEvent::Stored { service, artifact, plain_bytes, stored_bytes } => {
                let text = format_args!("{service}: {artifact}: {} stored", Bytes(*plain_bytes));
                let value = json!({ "step": "stored", "service": service, "artifact": artifact,
                    "plain_bytes": plain_bytes, "stored_bytes": stored_bytes });
                self.step(text, value);
            }
            ProgressEvent::Dumped { service } => {
                self.step(format_args!("{service}: dumped"), json!({ "step": "dumped", "service": service }));
            }
            ProgressEvent::Failed { service, message } => {
                let value = json!({ "step": "failed", "service": service, "message": message });
                self.step(format_args!("failed: {message}"), value);
            }
            ProgressEvent::Committed => self.step("manifest written", json!({ "step": "committed" })),
            _ => {}
        }
    }
}

impl Steps {
    fn step(&self, text: impl fmt::Display, value: Value) {
        self.out.step(text, value);
    }
}
