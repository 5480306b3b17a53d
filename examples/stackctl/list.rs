//! `list`.

use serde_json::{Value, json};
use stackkit::backup::manifest::Manifest;
use stackkit::backup::{BackupEntry, EntryState, Repository, SignatureState};
use stackkit::{RepositoryOptions, Secret};

use crate::cli::{ListArgs, Target};
use crate::exit::{Exit, Failure, Outcome};
use crate::keys;
use crate::output::Output;
use crate::setup;

/// Lists backups, newest first: those of the stack that is named, or of every stack.
pub(crate) async fn list(target: &Target, args: &ListArgs, out: &mut Output) -> Outcome {
    let url = setup::repository_url(target, out)?;
    let repository = open(&url, keys::trusting(&args.trust)?).await?;
    let entries = if args.all { repository.list_all().await } else { repository.list().await };
    let entries = entries.map_err(Failure::repository)?;
    let stack = target.stack.as_deref();
    for entry in entries.iter().filter(|entry| stack.is_none_or(|stack| entry.stack == stack)) {
        out.result(entry, &row(entry)).map_err(Failure::usage)?;
    }
    Ok(Exit::Done)
}

/// Opens a repository to read from it.
///
/// # Errors
/// Usage for a URL that names none, else the repository's.
pub(crate) async fn open(url: &Secret, options: RepositoryOptions) -> Outcome<Repository> {
    Repository::open(url.expose(), options).await.map_err(Failure::repository)
}

fn row(entry: &BackupEntry) -> Value {
    let mut row = json!({ "id": entry.id, "stack": entry.stack });
    if let Some(manifest) = entry.manifest() {
        describe(manifest, &mut row);
    }
    match &entry.state {
        EntryState::Ready(manifest) => row["state"] = json!(manifest.status),
        EntryState::Announced(_) => row["state"] = "announced".into(),
        EntryState::Damaged(error) => {
            row["state"] = "damaged".into();
            row["error"] = error.to_string().into();
        }
        _ => row["state"] = "incomplete".into(),
    }
    if let Some(signature) = &entry.signature {
        let (state, signer) = signed(signature);
        row["signature"] = json!({ "state": state, "signer": signer });
    }
    row
}

fn describe(manifest: &Manifest, row: &mut Value) {
    row["started"] = json!(manifest.started);
    row["finished"] = json!(manifest.finished);
    row["tags"] = json!(manifest.tags);
    row["services"] = manifest.services.iter().map(|service| service.id.as_str()).collect();
    row["plain_bytes"] = manifest.artifacts().map(|(_, artifact)| artifact.plain.bytes).sum::<u64>().into();
    row["stored_bytes"] = manifest.artifacts().map(|(_, artifact)| artifact.stored.bytes).sum::<u64>().into();
}

fn signed(signature: &SignatureState) -> (&'static str, Option<String>) {
    match signature {
        SignatureState::Trusted(key) => ("trusted", Some(key.to_string())),
        SignatureState::NotJudged(key) => ("not_judged", Some(key.to_string())),
        SignatureState::Foreign(key) => ("foreign", Some(key.to_string())),
        _ => ("unsigned", None),
    }
}
