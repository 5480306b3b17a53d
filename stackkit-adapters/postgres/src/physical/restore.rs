//! Restore: extract into a directory beside the target, check all of it, rename.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use stackkit_core::backup::{
    ArtifactName, ArtifactSource, PlannedAction, RestoreAction, RestoreContext, RestoreOptions, RestorePlan,
    RestoreReport, TargetState,
};
use stackkit_core::process::is_root;
use stackkit_core::{Error, ErrorKind, Result, Service};

use crate::physical::extract::{Place, extract, failed, sync_directory};
use crate::physical::label::Label;
use crate::physical::provider::{READ_BYTES, check_format, read};
use crate::physical::verify::{Verified, Verifier};
use crate::physical::{ARTIFACT, BaseBackup};

/// What the name of the directory that is being filled ends with.
const PARTIAL: &str = ".partial";

/// The plan's entry for the directory.
const DIRECTORY: &str = "data_directory";

/// The plan's entry for where recovery starts.
const POSITION: &str = "start_position";

/// How many differences of a census an error names; the rest is only counted.
const DIFFERENCES_SHOWN: usize = 5;

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Absent,
    EmptyDirectory,
    /// A directory that holds something, a file, or a link.
    Something,
}

impl BaseBackup {
    fn target(&self) -> Result<Target> {
        let path = self
            .restore_to()
            .ok_or_else(|| Error::config("no directory to restore into is set: base_backup().with_restore_to(path)"))?;
        Target::of(path)
    }

    pub(crate) async fn plan(&self, source: &dyn ArtifactSource, options: &RestoreOptions) -> Result<RestorePlan> {
        let target = self.target()?;
        let name = ArtifactName::new(ARTIFACT)?;
        let artifact = source.info(&name)?;
        check_format(artifact)?;
        let label = label_of(source, &name).await?;
        let mut plan = RestorePlan::new(self.id().clone(), self.kind(), target.fingerprint().await?);
        if find(&target.partial).await? != Found::Absent {
            plan.warnings.push(format!("{} is left over from a restore that was cut short", target.partial.display()));
            plan.actions.push(target.action(RestoreAction::Drop, &target.partial));
        }
        plan.actions.push(target.action(RestoreAction::Create, &target.path));
        if find(&target.path).await? == Found::Something {
            plan.missing.push(format!("an absent or empty directory at {}", target.path.display()));
        }
        plan.missing.extend(target.room_missing(artifact.plain_bytes));
        plan.artifacts.push(name);
        plan.old_data = options.old_data;
        plan.details.insert(DIRECTORY.to_owned(), target.path.display().to_string());
        plan.details.insert(POSITION.to_owned(), label.position());
        Ok(plan)
    }

    pub(crate) async fn apply(
        &self,
        plan: RestorePlan,
        source: &dyn ArtifactSource,
        cx: &RestoreContext,
    ) -> Result<RestoreReport> {
        let old = |error: Error| error.with_target(TargetState::Old);
        let target = self.target().map_err(old)?;
        self.check(&plan, &target).await.map_err(old)?;
        if plan.actions.iter().any(|step| step.action == RestoreAction::Drop) {
            remove(&target.partial).await.map_err(old)?;
        }
        let place = Place::make(&target.partial).await.map_err(old)?;
        let verified = match self.fill(source, cx, &target, place).await {
            Ok(verified) => verified,
            Err(error) => {
                // What can't be removed is named by the next plan; the cause is worth more than a second error.
                let _left = remove(&target.partial).await;
                return Err(old(error));
            }
        };
        sync_directory(&target.parent).await.map_err(|error| error.with_target(TargetState::New))?;
        Ok(RestoreReport::new(self.id().clone(), verified.census.clone()).with_warnings(notes(&target.path, verified)))
    }

    /// Refuses a plan that lacks something, is another service's, or is stale.
    async fn check(&self, plan: &RestorePlan, target: &Target) -> Result<()> {
        let is_same_place = plan.details.get(DIRECTORY) == Some(&target.path.display().to_string());
        if plan.kind != self.kind() || plan.service != *self.id() || !is_same_place {
            return Err(stale("the plan is of another service or directory"));
        }
        if let Some(missing) = plan.missing.first() {
            return Err(stale("the plan lacks something").with_context("missing", missing));
        }
        if target.fingerprint().await? != plan.fingerprint {
            return Err(stale("the target changed since the plan was made; make a fresh plan"));
        }
        Ok(())
    }

    /// Fills the directory beside the target, compares, and gives it the target's name.
    async fn fill(
        &self,
        source: &dyn ArtifactSource,
        cx: &RestoreContext,
        target: &Target,
        place: Place,
    ) -> Result<Verified> {
        let name = ArtifactName::new(ARTIFACT)?;
        check_format(source.info(&name)?)?;
        let verified = extract(source.open(&name).await?, place).await?;
        let differences = cx.expected.as_ref().map(|expected| expected.diff(&verified.census)).unwrap_or_default();
        if !differences.is_empty() {
            let shown: Vec<String> = differences.iter().take(DIFFERENCES_SHOWN).map(ToString::to_string).collect();
            return Err(Error::integrity("the restored files are not those of the dump")
                .with_context("differences", differences.len())
                .with_context("first", shown.join("; ")));
        }
        // The system refuses to replace a directory that is not empty, whoever filled it meanwhile.
        let renamed = tokio::fs::rename(&target.partial, &target.path).await;
        renamed.map_err(|e| failed("rename the restored directory", &target.path, e))?;
        Ok(verified)
    }
}

fn stale(message: &str) -> Error {
    Error::new(ErrorKind::Incompatible, message)
}

/// What to know before a server is started on the directory.
fn notes(path: &Path, verified: Verified) -> Vec<String> {
    let path = path.display();
    let mut notes = vec![format!(
        "start it with PostgreSQL {}: recovery ends with the backup. To go on to a later time from archived WAL, set \
         restore_command and recovery_target_time and create recovery.signal in {path} before the first start",
        verified.major
    )];
    if is_root() {
        notes.push(format!("the files belong to root, as which no server starts: chown -R postgres {path}"));
    }
    notes.extend(verified.warnings);
    notes
}

async fn label_of(source: &dyn ArtifactSource, name: &ArtifactName) -> Result<Label> {
    let mut data = source.open(name).await?;
    let mut verifier = Verifier::default();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let piece = read(&mut data, &mut buffer).await?;
        if piece.is_empty() {
            return Err(Error::integrity("the base backup has no backup_label"));
        }
        verifier.push(piece)?;
        if let Some(label) = verifier.label() {
            return Ok(label);
        }
    }
}

/// The directory that a restore makes, and what is around it.
struct Target {
    path: PathBuf,
    parent: PathBuf,
    partial: PathBuf,
}

impl Target {
    fn of(path: &Path) -> Result<Self> {
        let (Some(name), true) = (path.file_name(), path.is_absolute()) else {
            let error = Error::config("the directory to restore into is not an absolute path with a name");
            return Err(error.with_context("path", path.display()));
        };
        let mut partial = OsString::from(name);
        partial.push(PARTIAL);
        let parent = path.parent().unwrap_or(path).to_owned();
        Ok(Self { path: path.to_owned(), partial: parent.join(partial), parent })
    }

    fn action(&self, action: RestoreAction, path: &Path) -> PlannedAction {
        PlannedAction::new(action, format!("directory {}", path.display()))
    }

    async fn fingerprint(&self) -> Result<String> {
        Ok(format!("target {:?}; partial {:?}", find(&self.path).await?, find(&self.partial).await?))
    }

    /// What the file system lacks for `need_bytes`.
    fn room_missing(&self, need_bytes: u64) -> Option<String> {
        let parent = self.parent.display();
        match rustix::fs::statvfs(&self.parent) {
            Err(_none) => Some(format!("the directory {parent}")),
            Ok(stat) => {
                let free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
                let what = || format!("{need_bytes} bytes of free space in {parent}; {free_bytes} are free");
                (free_bytes < need_bytes).then(what)
            }
        }
    }
}

async fn find(path: &Path) -> Result<Found> {
    let looked = async {
        match tokio::fs::symlink_metadata(path).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Absent),
            Err(error) => return Err(error),
            Ok(meta) if !meta.is_dir() => return Ok(Found::Something),
            Ok(_directory) => {}
        }
        let first = tokio::fs::read_dir(path).await?.next_entry().await?;
        Ok(if first.is_some() { Found::Something } else { Found::EmptyDirectory })
    };
    looked.await.map_err(|e| failed("look at a directory", path, e))
}

/// Removes what an earlier restore left; nothing there is fine.
async fn remove(path: &Path) -> Result<()> {
    match tokio::fs::remove_dir_all(path).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed("remove a directory", path, error)),
        _gone => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_is_absolute_and_has_a_name() {
        let target = Target::of(Path::new("/srv/pg/data")).expect("a target");
        assert_eq!((target.parent.to_str(), target.partial.to_str()), (Some("/srv/pg"), Some("/srv/pg/data.partial")));
        for path in ["data", "/", ""] {
            assert_eq!(Target::of(Path::new(path)).map(drop).expect_err(path).kind(), ErrorKind::Config);
        }
    }

    #[tokio::test]
    async fn what_is_at_a_path_is_told_apart() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        assert_eq!(find(&path.join("none")).await.expect("a look"), Found::Absent);
        assert_eq!(find(path).await.expect("a look"), Found::EmptyDirectory);
        std::os::unix::fs::symlink(path, path.join("link")).expect("a link");
        assert_eq!(find(&path.join("link")).await.expect("a look"), Found::Something, "links are not followed");
        assert_eq!(find(path).await.expect("a look"), Found::Something);
    }
}
