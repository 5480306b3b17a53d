//! A hook that is a command.

use std::path::{Path, PathBuf};

use stackkit_core::process::{Tool, find_tool};
use stackkit_core::{Error, Result, Secret};

use super::{HookContext, HookOutcome};

#[derive(Clone)]
pub(super) struct Command {
    words: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) secrets: Vec<(String, Secret)>,
}

impl Command {
    pub(super) fn new(words: Vec<String>) -> Self {
        Self { words, env: Vec::new(), secrets: Vec::new() }
    }

    /// The program's file name.
    pub(super) fn name(&self) -> String {
        let program = self.words.first().map(String::as_str).unwrap_or_default();
        Path::new(program).file_name().map_or_else(|| program.to_owned(), |name| name.to_string_lossy().into_owned())
    }

    /// Runs it to its end. Dropping the future kills its process group.
    pub(super) async fn run(&self, about: HookContext) -> Result<()> {
        let Some((program, args)) = self.words.split_first().filter(|(program, _)| !program.is_empty()) else {
            return Err(Error::config("the command of a hook has no program"));
        };
        let program = match program.contains('/') {
            true => PathBuf::from(program),
            false => find_tool(program, &[])?,
        };
        let mut tool = Tool::new(program).args(args);
        for (name, value) in &self.env {
            tool = tool.env(name, value);
        }
        for (name, secret) in &self.secrets {
            tool = tool.secret_env(name, secret);
        }
        // After the caller's own, so that none of these can be another's.
        tool = tool
            .env("STACKKIT_HOOK", about.point.as_str())
            .env("STACKKIT_STACK", &about.stack)
            .env("STACKKIT_BACKUP_ID", about.backup.to_string());
        tool = match &about.service {
            Some(service) => tool.env("STACKKIT_SERVICE", service.as_str()),
            None => tool.env_remove("STACKKIT_SERVICE"),
        };
        tool = match about.outcome {
            Some(HookOutcome::Succeeded) => tool.env("STACKKIT_OUTCOME", "succeeded"),
            Some(HookOutcome::Failed(_)) => tool.env("STACKKIT_OUTCOME", "failed"),
            None => tool.env_remove("STACKKIT_OUTCOME"),
        };
        tool.spawn()?.wait().await.map(drop)
    }
}
