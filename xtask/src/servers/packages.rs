//! Packages of the system: by apt on Debian and its children, by telling the person elsewhere.

use std::path::Path;

use super::table::Packages;
use crate::output::{Result, headline, line};
use crate::shell::Run;

/// Installs `missing`, after saying how. With `dry_run` it only says.
///
/// # Errors
/// If this is no Debian machine, if there is no right to install, or if apt fails.
pub(super) fn install(missing: &[&Packages], dry_run: bool) -> Result {
    if !Path::new("/etc/debian_version").exists() {
        return advise(missing, dry_run);
    }
    let packages: Vec<&str> = missing.iter().flat_map(|packages| packages.debian).copied().collect();
    headline(&format!("will run as root: apt-get install -y --no-install-recommends {}", packages.join(" ")));
    line("(a package may start a server of its own; the tests start private ones and leave it alone)");
    if dry_run {
        return Ok(());
    }
    let apt = Apt::for_this_user()?;
    let known = packages.iter().all(|package| has_candidate(package));
    if !known {
        apt.update().run()?;
    }
    match apt.install(&packages).run() {
        // A list of packages that has grown old names files which the mirror no longer has.
        Err(_) if known => {
            apt.update().run()?;
            apt.install(&packages).run()
        }
        done => done,
    }
}

/// Fetches apt's lists.
///
/// # Errors
/// If there is no right to, or if apt fails.
pub(super) fn update() -> Result {
    Apt::for_this_user()?.update().run()
}

fn advise(missing: &[&Packages], dry_run: bool) -> Result {
    let list =
        |name: fn(&Packages) -> &'static str| missing.iter().map(|each| name(each)).collect::<Vec<_>>().join(" ");
    line("install what is missing with one of:");
    line(&format!("  brew install {}", list(|each| each.brew)));
    line(&format!("  sudo dnf install {}", list(|each| each.dnf)));
    line(&format!("  sudo pacman -S --needed {}", list(|each| each.pacman)));
    if dry_run { Ok(()) } else { Err("this system's packages are not installed by this command".into()) }
}

/// Whether apt's lists know a version of `package` to install.
fn has_candidate(package: &str) -> bool {
    let policy = Run::new("apt-cache").env("LC_ALL", "C").args(["policy", package]).read().unwrap_or_default();
    policy.lines().any(|line| line.trim().strip_prefix("Candidate:").is_some_and(|version| version.trim() != "(none)"))
}

/// How this user calls apt-get.
#[derive(Clone, Copy, Debug)]
enum Apt {
    Root,
    Sudo,
}

impl Apt {
    fn for_this_user() -> Result<Self> {
        if Run::new("id").arg("-u").read()?.trim() == "0" {
            return Ok(Self::Root);
        }
        let sudo = Run::new("sudo").args(["-n", "true"]).read();
        sudo.map(|_| Self::Sudo)
            .map_err(|error| format!("installing needs root or a sudo that asks nothing ({error})").into())
    }

    fn get(self) -> Run {
        // Sudo drops the environment, so the variable is set behind it.
        let run = match self {
            Self::Root => Run::new("env"),
            Self::Sudo => Run::new("sudo").args(["-n", "env"]),
        };
        run.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"])
    }

    fn update(self) -> Run {
        self.get().args(["update", "-q"])
    }

    fn install(self, packages: &[&str]) -> Run {
        self.get().args(["install", "-y", "-q", "--no-install-recommends"]).args(packages)
    }
}
