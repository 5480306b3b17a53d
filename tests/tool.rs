//! Runs the example programs as a user would: as processes, judged by exit code and output.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::{Completion, Trial};
use stackkit::ErrorKind;
use stackkit::process::find_tool;

/// Why a test can't run here: a server that it needs is not installed. Fails where `STACKKIT_REQUIRE` names the store.
fn missing(needs: &[&str]) -> Option<String> {
    if needs.contains(&"root") && !stackkit::process::is_root() {
        return Some("only root can mount a small file system".to_owned());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    needs.iter().filter(|need| **need != "root").find_map(|store| {
        let started = runtime.block_on(async {
            match *store {
                "postgres" => stackkit_fixtures::postgres().await.map(drop),
                "redis" => stackkit_fixtures::redis().await.map(drop),
                "minio" => stackkit_fixtures::minio().await.map(drop),
                tool @ ("age" | "promtool" | "script") => find_tool(tool, &[]).map(drop),
                "chromium" => crate::chromium::find().map(drop),
                other => panic!("no fixture starts {other}"),
            }
        });
        let error = started.err().filter(|error| error.kind() == ErrorKind::ToolMissing)?;
        assert!(!stackkit_fixtures::is_required(store), "{error}");
        Some(error.to_string())
    })
}

/// One test of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Test {
    name: &'static str,
    run: fn(),
    needs: &'static [&'static str],
}

impl Test {
    pub(crate) const fn new(name: &'static str, run: fn()) -> Self {
        Self { name, run, needs: &[] }
    }

    /// The servers without which it is ignored, or `root`.
    pub(crate) const fn needs(mut self, needs: &'static [&'static str]) -> Self {
        self.needs = needs;
        self
    }

    pub(crate) fn trial(&'static self, module: &str) -> Trial {
        Trial::ignorable_test(format!("{module}::{}", self.name), || match missing(self.needs) {
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => {
                (self.run)();
                Ok(Completion::Completed)
            }
        })
    }
}

/// What a finished program left.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The exit code; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

impl Outcome {
    /// Both outputs together.
    pub(crate) fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Fails the test unless the program ended with `code`.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }
}

/// The built example of that name: beside this test's own binary, where `cargo test` puts it.
pub(crate) fn example(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let folder = own.parent().and_then(Path::parent).unwrap().join("examples");
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: `cargo build --examples` builds it", path.display());
    path
}

/// A command for the example; the caller may go on before it ends.
#[expect(clippy::disallowed_methods, reason = "the program under test is run as a user's shell runs it")]
pub(crate) fn command(name: &str, args: &[&str]) -> Command {
    let mut command = Command::new(example(name));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A file system in memory that is soon full; unmounted with the value.
#[derive(Debug)]
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    pub(crate) fn mount(folder: &Path, size: &str) -> Self {
        std::fs::create_dir(folder).unwrap();
        let options = format!("size={size}");
        system("mount", &["-t", "tmpfs", "-o", &options, "stackkit-test"], folder);
        Self(folder.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        system("umount", &["-l"], &self.0);
    }
}

/// A command of a tool of the system; the caller may go on before it ends.
#[expect(clippy::disallowed_methods, reason = "a tool of the system that the library does not use")]
pub(crate) fn system_command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

#[expect(clippy::disallowed_methods, reason = "a tool of the system that the library does not use")]
fn system(program: &str, args: &[&str], folder: &Path) {
    let status = Command::new(program).args(args).arg(folder).status().unwrap();
    assert!(status.success() || std::thread::panicking(), "{program} {} failed: {status}", folder.display());
}

/// What a line of shell prints; its last command must succeed.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "a person's shell, without anything of this project")]
pub(crate) fn shell(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{line}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command to its end.
pub(crate) fn finish(mut command: Command) -> Outcome {
    let output = command.output().unwrap();
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs `stackctl` to its end.
pub(crate) fn stackctl(args: &[&str]) -> Outcome {
    finish(command("stackctl", args))
}

/// The sum of the sizes of all files below a folder; files that vanish while it looks count nothing.
pub(crate) fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => folder_bytes(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.flatten().map(bytes).sum()
}

/// Every file below a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, mut found): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir() && !path.is_symlink());
    found.extend(folders.iter().flat_map(|folder| files(folder)));
    found
}
