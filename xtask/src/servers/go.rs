//! Servers that Go builds from the module proxy, kept outside of cargo's target directory: a build takes minutes.

use std::fs;
use std::path::{Path, PathBuf};

use super::table::{GoModule, Packages};
use super::{place, search};
use crate::output::{Result, headline, line};
use crate::shell::Run;

/// From this minor version of Go 1 on, Go itself fetches the toolchain that a module asks for.
const SELF_FETCHING_MINOR: u32 = 21;
/// What brings Go where there is none. An old version is enough: it only has to fetch the right one.
const GO: Packages = Packages { debian: &["golang-go"], brew: "go", dnf: "golang", pacman: "go" };

/// The package to install before [`build`], if something is to be built and this machine has no Go.
pub(super) fn package_for(is_needed: bool) -> Option<&'static Packages> {
    (is_needed && go().is_none()).then_some(&GO)
}

/// Where the server `name` of this version is kept.
pub(super) fn folder(name: &str, module: &GoModule) -> PathBuf {
    place::own().join(format!("{name}-{}", module.version))
}

/// Builds the server `name` into its folder. With `dry_run` it only says what it would do.
///
/// Go's own caches, gigabytes for one binary, are thrown away.
///
/// # Errors
/// If there is no Go, if the module or a toolchain for it can't be had, or if it does not build.
pub(super) fn build(name: &str, module: &GoModule, dry_run: bool) -> Result {
    let folder = folder(name, module);
    headline(&format!("will build {name} with Go, some minutes, into {}", folder.display()));
    line(&format!("({}@{})", module.module, module.version));
    if dry_run {
        return Ok(());
    }
    let go = go().ok_or("there is no Go: install it (https://go.dev/dl), then run this again")?;
    let scratch = std::env::temp_dir().join(format!("stackkit-build-{name}-{}", std::process::id()));
    fs::create_dir_all(&scratch)?;
    let built = Workshop { go, scratch: scratch.clone() }.build(name, module, &folder);
    let cleaned = fs::remove_dir_all(&scratch);
    built?;
    Ok(cleaned?)
}

fn go() -> Option<PathBuf> {
    search::find(&["go"], &search::folders())
}

/// A Go with caches of its own.
struct Workshop {
    go: PathBuf,
    scratch: PathBuf,
}

impl Workshop {
    fn build(mut self, name: &str, module: &GoModule, folder: &Path) -> Result {
        let version = self.run(["env", "GOVERSION"]).read()?;
        let can_fetch = minor(version.trim()).is_some_and(|minor| minor >= SELF_FETCHING_MINOR);
        if !can_fetch {
            self.go = self.toolchain(module.toolchain)?;
        }
        let package = format!("{}@{}", module.module, module.version);
        let install = self.run(["install", "-modcacherw", "-trimpath", "-ldflags=-s -w", &package]);
        install.env("CGO_ENABLED", "0").run()?;
        // A folder is there with a whole binary in it, or not at all.
        fs::create_dir_all(folder)?;
        let part = folder.join(format!("{name}.part-{}", std::process::id()));
        fs::copy(self.bin().join(name), &part)?;
        Ok(fs::rename(&part, folder.join(name))?)
    }

    /// Has an older Go fetch the toolchain that a newer one would fetch itself, from the same place with the same checks.
    fn toolchain(&self, version: &str) -> Result<PathBuf> {
        let platform = self.run(["env", "GOOS", "GOARCH"]).read()?.split_whitespace().collect::<Vec<_>>().join("-");
        let name = format!("golang.org/toolchain@v0.0.1-go{version}.{platform}");
        headline(&format!("this Go is older than 1.{SELF_FETCHING_MINOR}: fetching {name}"));
        // `go mod download` wants to stand in a module.
        let module = self.scratch.join("module");
        fs::create_dir_all(&module)?;
        fs::write(module.join("go.mod"), "module stackkit.test/toolchain\n")?;
        self.run(["mod", "download", "-modcacherw", &name]).directory(&module).run()?;
        let folder = self.scratch.join("path/pkg/mod").join(&name);
        make_runnable(&folder.join("bin"))?;
        for tools in fs::read_dir(folder.join("pkg/tool"))? {
            make_runnable(&tools?.path())?;
        }
        // A module's archive can't hold a second `go.mod`.
        fs::copy(folder.join("src/_go.mod"), folder.join("src/go.mod"))?;
        Ok(folder.join("bin/go"))
    }

    fn run<const N: usize>(&self, args: [&str; N]) -> Run {
        let run = Run::new(&self.go).args(args);
        let run = run.env("GOPATH", self.scratch.join("path")).env("GOCACHE", self.scratch.join("cache"));
        let run = run.env("GOBIN", self.bin()).env("GOFLAGS", "").env("GOTOOLCHAIN", "auto");
        // Go makes its temporary files executable, which not every temporary directory allows.
        run.env("GOTMPDIR", &self.scratch)
    }

    fn bin(&self) -> PathBuf {
        self.scratch.join("bin")
    }
}

/// The `24` of `go1.24.8`.
fn minor(version: &str) -> Option<u32> {
    let rest = version.strip_prefix("go1.")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// A module's archive keeps no permissions.
fn make_runnable(folder: &Path) -> Result {
    for entry in fs::read_dir(folder)? {
        allow_execution(&entry?.path())?;
    }
    Ok(())
}

#[cfg(unix)]
fn allow_execution(path: &Path) -> Result {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

#[cfg(not(unix))]
fn allow_execution(_: &Path) -> Result {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::table::{SERVERS, Source};
    use super::*;

    #[test]
    fn the_minor_version_decides_who_fetches_the_toolchain() {
        for (version, expected) in [("go1.19.8", Some(19)), ("go1.26", Some(26)), ("go1.21rc2", Some(21))] {
            assert_eq!(minor(version), expected, "{version}");
        }
        assert_eq!(minor("devel +a1b2c3"), None);
    }

    #[test]
    fn a_version_has_a_folder_of_its_own() {
        let modules = SERVERS.iter().filter_map(|server| match &server.source {
            Source::Go(module) => Some((server.name, module)),
            Source::Packages(_) | Source::Debian(_) | Source::Wheel(_) => None,
        });
        for (name, module) in modules {
            let folder = folder(name, module);
            assert!(folder.to_string_lossy().ends_with(&format!("{name}-{}", module.version)), "{}", folder.display());
        }
    }
}
