//! `initdb` once per version: its result is kept and copied for each server.

use std::fs::{self, DirBuilder, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use stackkit_core::process::{Tool, User};
use stackkit_core::{Error, ErrorKind, Result};

use crate::server::{PrivateDir, QuickEnd, belongs_to, copy_tree, tool_in};

/// Part of the template's name: raise it when the arguments of `initdb` change.
const RECIPE: u32 = 1;
/// `initdb` takes one second on an idle machine and three on a busy one.
const INITDB_TIMEOUT: Duration = Duration::from_secs(120);
/// A program that prints its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);
/// The file by which cargo marks its target directory (<https://bford.info/cachedir/>).
const CACHE_TAG: &str = "CACHEDIR.TAG";

/// A data directory to copy for each server.
#[derive(Debug)]
pub(super) struct Template {
    pub(super) path: PathBuf,
    /// The major version of the server.
    pub(super) major: u32,
}

/// The template for the server `postgres`; made if there is none.
///
/// Processes that ask at once wait for each other; a template that exists is whole, for it is renamed into place.
pub(super) async fn template(postgres: &Path, owner: Option<User>) -> Result<Template> {
    let version = version(postgres).await?;
    let digits = version.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    let major = digits.parse().map_err(|error| Error::unexpected("the version is no number").with_source(error))?;
    let path = sealed(postgres, &version, owner).await?;
    Ok(Template { path, major })
}

async fn sealed(postgres: &Path, version: &str, owner: Option<User>) -> Result<PathBuf> {
    let cache = cache_directory()?;
    let sealed = cache.join(format!("postgresql-{version}-{:016x}-{RECIPE}", hash(postgres)));
    if sealed.exists() {
        return Ok(sealed);
    }
    let lock_path = cache.join("postgresql.lock");
    let lock = tokio::task::spawn_blocking(move || -> std::io::Result<File> {
        let file = File::create(lock_path)?;
        file.lock()?;
        Ok(file)
    });
    let locked = lock.await.map_err(|error| Error::unexpected("the lock's task failed").with_source(error))?;
    let _lock = locked.map_err(|error| Error::io("lock the cache of templates", error))?;
    if !sealed.exists() {
        make(postgres, owner, &sealed).await?;
    }
    Ok(sealed)
}

async fn make(postgres: &Path, owner: Option<User>, sealed: &Path) -> Result<()> {
    let dir = PrivateDir::create(owner, QuickEnd::KILL)?;
    let data = dir.path().join("data");
    let tool = tool_in(&dir, &postgres.with_file_name("initdb")).arg("-D").arg(&data);
    let tool = tool
        .args(["--no-sync", "--username=postgres", "--encoding=UTF8", "--locale=C", "--wal-segsize=1"])
        .args(["--auth-local=trust", "--auth-host=scram-sha-256"]);
    tool.output(INITDB_TIMEOUT).await?;
    // Only the holder of the lock is here: what is there was left by one that was killed.
    let unsealed = sealed.with_file_name("unsealed");
    let _ = fs::remove_dir_all(&unsealed);
    copy_tree(data, unsealed.clone(), None).await?;
    fs::rename(&unsealed, sealed).map_err(|error| Error::io("seal a template", error))
}

/// `15.18` out of `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
async fn version(postgres: &Path) -> Result<String> {
    let output = Tool::new(postgres).arg("--version").output(VERSION_TIMEOUT).await?;
    let text = String::from_utf8_lossy(&output).into_owned();
    let version = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    version.map(str::to_owned).ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, "postgres does not tell its version").with_context("answer", text.trim())
    })
}

/// Two installations of one version may differ in how they were built.
fn hash(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

/// `STACKKIT_FIXTURES_CACHE`, else cargo's target directory, else the user's cache, else a temporary directory.
fn cache_directory() -> Result<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let user_cache = || variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    let candidates = [
        variable("STACKKIT_FIXTURES_CACHE"),
        target_directory().map(|target| target.join("stackkit-fixtures")),
        user_cache().map(|cache| cache.join("stackkit-fixtures")),
        Some(std::env::temp_dir().join(format!("stackkit-fixtures-{uid}"))),
    ];
    let usable =
        |path: &PathBuf| DirBuilder::new().recursive(true).mode(0o700).create(path).is_ok() && belongs_to(path, uid);
    candidates.into_iter().flatten().find(usable).ok_or_else(|| {
        Error::new(ErrorKind::Io, "no directory for templates can be made").with_operation("make a template")
    })
}

/// The target directory that the running test binary lies in.
fn target_directory() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    program.ancestors().find(|directory| directory.join(CACHE_TAG).is_file()).map(Path::to_owned)
}
