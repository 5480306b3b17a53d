//! `cargo xtask fuzz`: the fuzz targets, built for libFuzzer by the stable compiler and run for a while.
//!
//! `unsafe` is forbidden in the workspace, so no sanitizer is needed, and with it no nightly: coverage is a pass of LLVM.

use std::fs;
use std::path::PathBuf;

use crate::output::{Result, headline, line, took};
use crate::shell::{self, Run};

/// The targets, each a program in `fuzz/`.
const TARGETS: [&str; 7] =
    ["manifest", "frame_index", "artifact_reader", "age_file", "lease", "tombstone", "pg_archive"];

/// Coverage for libFuzzer, and every check of a debug build.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks";

/// The most memory that a target may take, in MiB: an input must not fill it, whatever it promises.
const MEMORY_MAX_MIB: u32 = 1024;

/// The longest that one input may take, in seconds.
const INPUT_SECONDS_MAX: u32 = 10;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Only these targets; the default is all
    #[arg(value_name = "TARGET", value_parser = TARGETS)]
    targets: Vec<String>,
    /// How long each target runs
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    seconds: u32,
}

impl Args {
    /// Every target, as long as the test command runs them.
    pub(crate) fn for_tests() -> Self {
        Self { targets: Vec::new(), seconds: 30 }
    }
}

/// Builds and runs the targets. What a target finds stays in `target/fuzz`; the corpus in `fuzz/corpus` is only read.
///
/// # Errors
/// If a target does not build, or finds an input that breaks a promise: its file is named.
pub(crate) fn run(args: &Args) -> Result {
    let chosen = |target: &&str| args.targets.is_empty() || args.targets.iter().any(|name| name == target);
    let targets: Vec<&str> = TARGETS.into_iter().filter(chosen).collect();
    headline("fuzz targets");
    let host = host()?;
    let (built, wall) = shell::timed(|| build(&targets, &host));
    built?;
    took("build", wall);
    for target in targets {
        headline(target);
        let (done, wall) = shell::timed(|| fuzz(target, &host, args.seconds));
        done?;
        took(target, wall);
    }
    Ok(())
}

/// The platform of this machine. It is named in the build, so that build scripts get no coverage.
fn host() -> Result<String> {
    let version = Run::new("rustc").arg("-vV").read()?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.ok_or("rustc does not tell its host")?.to_owned())
}

fn build(targets: &[&str], host: &str) -> Result {
    let mut build = Run::cargo().args(["build", "--quiet", "--release", "--manifest-path", "fuzz/Cargo.toml"]);
    build = build.args(["--target", host]).arg("--target-dir").arg(folder());
    let bins = targets.iter().flat_map(|target| ["--bin", target]);
    build.args(bins).env("RUSTFLAGS", FLAGS).run()
}

fn fuzz(target: &str, host: &str, seconds: u32) -> Result {
    let (grown, found) = (folder().join("corpus").join(target), folder().join("found").join(target));
    fs::create_dir_all(&grown)?;
    fs::create_dir_all(&found)?;
    let kept = shell::root().join("fuzz/corpus").join(target);
    line(&format!("corpus {}, findings in {}", kept.display(), found.display()));
    // libFuzzer adds what it learns to the first folder.
    let run = Run::new(folder().join(host).join("release").join(target)).arg(grown).arg(kept);
    let run = run.arg(format!("-artifact_prefix={}/", found.display()));
    let run = run.arg(format!("-max_total_time={seconds}")).arg(format!("-rss_limit_mb={MEMORY_MAX_MIB}"));
    run.arg(format!("-timeout={INPUT_SECONDS_MAX}")).arg("-print_final_stats=1").run()
}

fn folder() -> PathBuf {
    shell::root().join("target/fuzz")
}
