//! Trees out of packages of a newer Debian, with the libc and the libraries that they were built for. apt fetches and
//! checks them with folders of its own; this system's packages and sources stay as they are.

use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::packages;
use super::place::Tree;
use super::table::DebianTree;
use crate::output::Result;
use crate::shell::Run;

/// The keys of every suite, which apt comes with.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Where packages of this architecture put libraries.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
/// The loader, which has to be of the same libc as the libraries.
const LOADER: &str = "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";
/// Libraries that nothing here loads: those of the just-in-time compiler are a hundred megabytes, those of Perl serve
/// the maintainer scripts, which do not run.
const UNUSED: [&str; 5] = ["libllvm", "libz3-", "libperl", "libgdbm", "libpam-modules"];
/// What an unpacked package leaves out. The compiler's module would fail without its libraries, where a missing one
/// turns it off.
const LEFT_OUT: [&str; 6] = [
    "--exclude=./usr/share/doc",
    "--exclude=./usr/share/man",
    "--exclude=./usr/share/locale",
    "--exclude=./usr/share/lintian",
    "--exclude=*/bitcode",
    "--exclude=*/llvmjit*",
];
/// A package's files go into a folder that others fill too, and belong to whoever unpacks them.
const UNPACK: &str = r#"package=$1 folder=$2; shift 2
dpkg-deb --fsys-tarfile "$package" | tar -x -C "$folder" --keep-directory-symlink --no-same-owner "$@""#;
/// The first bytes of a program that is no script.
const ELF: [u8; 4] = *b"\x7fELF";

/// Fills `tree` and tells where the programs are in it, and what it was made of.
///
/// # Errors
/// If this machine has no mirror of Debian, or if something can't be fetched, unpacked or patched.
pub(super) fn fill(debian: &DebianTree, tree: &Tree) -> Result<(PathBuf, String)> {
    let apt = PrivateApt::new(tree.part.join("apt"), debian.suite)?;
    let closure = apt.closure(debian.packages)?;
    let contents = apt.fetch(&closure)?;
    for package in apt.archives()? {
        Run::new("sh").args(["-c", UNPACK, "unpack"]).arg(package).arg(&tree.part).args(LEFT_OUT).run()?;
    }
    let server = PathBuf::from(format!("usr/lib/postgresql/{}", debian.major));
    patch(tree, &server)?;
    fs::remove_dir_all(&apt.folder)?;
    Ok((server.join("bin"), contents))
}

/// An apt that knows one suite, holds everything for missing, and installs nothing.
struct PrivateApt {
    folder: PathBuf,
}

impl PrivateApt {
    fn new(folder: PathBuf, suite: &str) -> Result<Self> {
        let mirror = mirror()?;
        for each in ["lists/partial", "cache/archives/partial", "state", "log"] {
            fs::create_dir_all(folder.join(each))?;
        }
        fs::write(folder.join("state/status"), "")?;
        fs::write(folder.join("sources.list"), format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n"))?;
        fs::write(folder.join("apt.conf"), configuration(&folder))?;
        let apt = Self { folder };
        apt.get().args(["-qq", "update"]).run()?;
        Ok(apt)
    }

    /// The packages and all that they need, as apt would install them on an empty system; without what no server loads.
    fn closure(&self, packages: &[&str]) -> Result<Vec<String>> {
        let simulated = self.get().args(["install", "-s"]).args(packages).read()?;
        let names = simulated.lines().filter_map(|line| line.strip_prefix("Inst ")?.split_whitespace().next());
        Ok(names.filter(|name| packages.contains(name) || is_library(name)).map(str::to_owned).collect())
    }

    /// Downloads them, and lists the files with their SHA-256.
    fn fetch(&self, names: &[String]) -> Result<String> {
        self.get().args(["-qq", "download"]).args(names).directory(&self.downloads()).run()?;
        let mut contents = String::new();
        for archive in self.archives()? {
            let name = archive.file_name().unwrap_or_default().to_owned();
            let sum = Run::new("sha256sum").arg(name).directory(&self.downloads()).read()?;
            writeln!(contents, "{}", sum.trim())?;
        }
        Ok(contents)
    }

    fn archives(&self) -> Result<Vec<PathBuf>> {
        let files = fs::read_dir(self.downloads())?.flatten().map(|entry| entry.path());
        let mut archives: Vec<_> =
            files.filter(|path| path.extension().is_some_and(|ending| ending == "deb")).collect();
        archives.sort();
        Ok(archives)
    }

    fn downloads(&self) -> PathBuf {
        self.folder.join("cache/archives")
    }

    fn get(&self) -> Run {
        Run::new("apt-get").env("APT_CONFIG", self.folder.join("apt.conf")).env("LC_ALL", "C")
    }
}

fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"Dir::State "{folder}/state";
Dir::State::status "{folder}/state/status";
Dir::State::lists "{folder}/lists";
Dir::Cache "{folder}/cache";
Dir::Log "{folder}/log";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
"#
    )
}

/// Debian's mirror as this machine's own sources name it.
fn mirror() -> Result<String> {
    let known = || -> Result<Option<String>> {
        let format = "$(ORIGIN) $(LABEL) $(REPO_URI)";
        let targets = Run::new("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]).read()?;
        Ok(targets.lines().find_map(|line| line.strip_prefix("Debian Debian ").map(str::to_owned)))
    };
    if let Some(mirror) = known()? {
        return Ok(mirror);
    }
    // An image without apt's lists.
    packages::update()?;
    known()?.ok_or_else(|| "no mirror of Debian is among the package sources of this machine".into())
}

fn is_library(package: &str) -> bool {
    let is_named_so = package.starts_with("lib") || package == "zlib1g";
    is_named_so && !package.ends_with("-perl") && !UNUSED.iter().any(|unused| package.starts_with(unused))
}

/// Makes every program load the tree's own libc and libraries, where the tree will be.
fn patch(tree: &Tree, server: &Path) -> Result {
    let (libraries, loader) = (tree.place.join(LIBRARIES), tree.place.join(LOADER));
    let programs: Vec<_> =
        files(&tree.part.join(server).join("bin"))?.into_iter().filter(|path| is_elf(path)).collect();
    // An old-style path: it counts for the libraries of libraries and for modules too.
    let patchelf = Run::new("patchelf").arg("--set-interpreter").arg(loader);
    patchelf.args(["--force-rpath", "--set-rpath"]).arg(&libraries).args(programs).run()?;
    for module in files(&tree.part.join(server).join("lib"))?.into_iter().filter(|path| is_elf(path)) {
        // One with a path of its own does not ask the program's.
        if !Run::new("patchelf").arg("--print-rpath").arg(&module).read()?.trim().is_empty() {
            Run::new("patchelf").arg("--set-rpath").arg(&libraries).arg(&module).run()?;
        }
    }
    Ok(())
}

/// The files of a folder, links left out.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let paths = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    Ok(paths.filter(|path| path.symlink_metadata().is_ok_and(|meta| meta.is_file())).collect())
}

fn is_elf(path: &Path) -> bool {
    let mut magic = [0; ELF.len()];
    fs::File::open(path).is_ok_and(|mut file| file.read_exact(&mut magic).is_ok()) && magic == ELF
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_has_libraries_and_no_scripts() {
        for name in ["libc6", "libicu76", "zlib1g", "libpq5", "libpam0g"] {
            assert!(is_library(name), "{name}");
        }
        for name in ["perl", "libjson-perl", "libllvm19", "postgresql-common", "libpam-modules-bin", "adduser"] {
            assert!(!is_library(name), "{name}");
        }
    }

    #[test]
    fn a_program_is_told_by_its_first_bytes() {
        assert!(is_elf(&std::env::current_exe().unwrap()));
        assert!(!is_elf(&crate::shell::root().join("Cargo.toml")));
    }
}
