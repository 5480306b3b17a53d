//! Versions of PostgreSQL beside the system's own: a tree each, with a link `bin` to its programs.

use std::fs;
use std::path::{Path, PathBuf};

use super::place::{self, Tree};
use super::table::{Packages, Source};
use super::{debian, search, wheel};
use crate::output::{Result, headline, line};
use crate::shell::Run;

/// Where packages put a version's programs, with `*` for the version: an installed one serves as well.
const WELL_KNOWN: [&str; 4] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
];
/// The file of a tree that says what it was made of.
const CONTENTS: &str = "contents.txt";
/// The keys of the suite that the trees are fetched from: an image of an older point release has none.
const SUITE_KEYS: &str = "/usr/share/keyrings/debian-archive-trixie-automatic.gpg";

/// What unpacks the trees: a program, and the package that brings it.
const TOOLS: [(&[&str], Packages); 3] = [
    (&["patchelf"], Packages { debian: &["patchelf"], brew: "patchelf", dnf: "patchelf", pacman: "patchelf" }),
    (&["pip3", "pip"], Packages { debian: &["python3-pip"], brew: "python", dnf: "python3-pip", pacman: "python-pip" }),
    (&["unzip"], Packages { debian: &["unzip"], brew: "unzip", dnf: "unzip", pacman: "unzip" }),
];
const KEYS: Packages = Packages {
    debian: &["debian-archive-keyring"],
    brew: "postgresql@17",
    dnf: "debian-keyring",
    pacman: "debian-archive-keyring",
};

/// The packages to install before [`unpack`], if a tree is to be unpacked.
pub(super) fn packages_for(is_needed: bool) -> Vec<&'static Packages> {
    if !is_needed || !is_supported() {
        return Vec::new();
    }
    let folders = search::folders();
    let absent =
        TOOLS.iter().filter(|(names, _)| search::find(names, &folders).is_none()).map(|(_, packages)| packages);
    let keys = (!Path::new(SUITE_KEYS).exists()).then_some(&KEYS);
    absent.chain(keys).collect()
}

/// The folders in which the programs of that source are looked for: our tree's, then those of packages.
pub(super) fn folders(name: &str, source: &Source) -> Vec<PathBuf> {
    let major = source.postgres().unwrap_or_default().to_string();
    let installed = WELL_KNOWN.iter().map(|pattern| PathBuf::from(pattern.replace('*', &major)));
    std::iter::once(place(name, source).join("bin")).chain(installed).collect()
}

/// Fetches and unpacks the version of that source. With `dry_run` it only says what it would do.
///
/// # Errors
/// If this is no Debian on x86-64, if something can't be fetched, is not what was pinned, or does not run.
pub(super) fn unpack(name: &str, source: &Source, dry_run: bool) -> Result {
    let place = place(name, source);
    headline(&format!("will fetch {name} and unpack it into {}", place.display()));
    if dry_run {
        return Ok(());
    }
    if !is_supported() {
        return Err(format!("{name} is fetched for Debian on x86-64 only: install it by hand").into());
    }
    if place.to_string_lossy().contains(char::is_whitespace) {
        return Err(format!("the path of a server must have no spaces: {}", place.display()).into());
    }
    if place.exists() {
        // It was looked at and has not all of its programs.
        fs::remove_dir_all(&place)?;
    }
    Tree::begin(place.clone())?.fill(|tree| {
        let (bin, contents) = match source {
            Source::Debian(debian) => debian::fill(debian, tree)?,
            Source::Wheel(wheel) => wheel::fill(wheel, tree)?,
            Source::Packages(_) | Source::Go(_) => return Err(format!("{name} is no tree").into()),
        };
        fs::write(tree.part.join(CONTENTS), contents)?;
        link(&bin, &tree.part.join("bin"))
    })?;
    let version = Run::new(place.join("bin/postgres")).arg("--version").read()?;
    line(&format!("{}; {} says what it was made of", version.trim(), place.join(CONTENTS).display()));
    Ok(())
}

/// Where the tree of that source is kept, `NAME-VERSION`.
fn place(name: &str, source: &Source) -> PathBuf {
    let version = match source {
        Source::Debian(debian) => debian.suite,
        Source::Wheel(wheel) => wheel.version,
        Source::Packages(_) | Source::Go(_) => "",
    };
    place::shared().join(format!("{name}-{version}"))
}

/// The programs of both sources are built for this system.
fn is_supported() -> bool {
    cfg!(all(target_os = "linux", target_arch = "x86_64")) && Path::new("/etc/debian_version").exists()
}

#[cfg(unix)]
fn link(to: &Path, from: &Path) -> Result {
    Ok(std::os::unix::fs::symlink(to, from)?)
}

#[cfg(not(unix))]
fn link(_: &Path, _: &Path) -> Result {
    Err("links need a Unix".into())
}

#[cfg(test)]
mod tests {
    use super::super::table::SERVERS;
    use super::*;

    #[test]
    fn a_version_has_a_tree_of_its_own() {
        let trees: Vec<_> = SERVERS.iter().filter(|server| server.source.postgres().is_some()).collect();
        assert_eq!(trees.len(), 3);
        for server in trees {
            let major = server.source.postgres().unwrap();
            let folders = folders(server.name, &server.source);
            assert_eq!(server.name, format!("postgresql-{major}"));
            let own = folders[0].parent().and_then(Path::file_name).unwrap().to_string_lossy();
            assert!(own.starts_with(&format!("postgresql-{major}-")), "{own}");
            assert!(folders.contains(&PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"))), "{folders:?}");
        }
    }
}
