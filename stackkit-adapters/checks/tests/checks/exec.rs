//! Programs: real children of this process.

use std::path::Path;
use std::time::Duration;

use stackkit_checks::ExecCheck;
use stackkit_core::health::{Status, Tier};
use stackkit_core::{ErrorKind, HealthCheck, Phase, Service};

use crate::support::{PATIENCE, codes, is_ready, probe, probe_in_vain, verdict};

fn shell(script: &str) -> ExecCheck {
    ExecCheck::new("job", "/bin/sh").args(["-c", script])
}

#[tokio::test]
async fn the_exit_code_decides() {
    let good = shell("exit 0");
    let seen = probe(&good).await.unwrap();
    assert!(is_ready(&good, &seen) && seen.value("runtime_ms").is_some());
    let bad = shell("exit 7");
    let seen = probe(&bad).await.unwrap();
    assert_eq!((codes(&seen), seen.info["exit_code"].as_str()), (vec!["exec.failed"], "7"));
    assert!(!is_ready(&bad, &seen));
    let expected = shell("exit 7").with_exit_codes([0, 7]);
    assert!(is_ready(&expected, &probe(&expected).await.unwrap()));
    let killed = shell("kill -9 $$");
    assert_eq!(codes(&probe(&killed).await.unwrap()), ["exec.failed"]);
}

#[tokio::test]
async fn the_codes_of_nagios_are_known() {
    for (code, found, status) in [
        (0, vec![], Status::Healthy),
        (1, vec!["exec.warning"], Status::Degraded),
        (2, vec!["exec.critical"], Status::Unhealthy),
    ] {
        let check = shell(&format!("exit {code}")).with_nagios_codes();
        let seen = probe(&check).await.unwrap();
        assert_eq!((codes(&seen), verdict(&check, &seen).ready), (found, status), "exit code {code}");
    }
    let error = probe(&shell("exit 3").with_nagios_codes()).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Io, Some("3")));
    assert!(error.mends_by_waiting(), "what could not be told may be told later");
}

#[tokio::test]
async fn a_program_that_hangs_is_killed_with_its_group_at_the_deadline() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pids");
    // `sleep` in the background is a grandchild that holds the group, not the child.
    let script = format!("sleep 600 & echo $! $$ > '{0}.part'; mv '{0}.part' '{0}'; wait", file.display());
    let (error, _) = probe_in_vain(&shell(&script)).await;
    assert_eq!((error.kind(), error.phase()), (ErrorKind::Timeout, Some(Phase::Query)));
    let pids = std::fs::read_to_string(&file).unwrap();
    for pid in pids.split_ascii_whitespace() {
        wait_until_gone(pid).await;
    }
}

/// Gone, or a zombie that its new parent has not waited for.
async fn wait_until_gone(pid: &str) {
    let lives = || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    let gone = async {
        let mut look = tokio::time::interval(Duration::from_millis(5));
        while lives() {
            look.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap_or_else(|_| panic!("process {pid} still lives"));
}

#[tokio::test]
async fn neither_output_nor_secrets_are_shown() {
    let check =
        shell("echo canary-out; echo canary-err >&2; echo $TOKEN >&2; exit 2").with_secret_env("TOKEN", "canary-env");
    let seen = probe(&check).await.unwrap();
    assert!(!format!("{seen:?} {check:?}").contains("canary-env"), "{seen:?} {check:?}");
    assert!(!format!("{seen:?}").contains("canary"), "{seen:?}");
    let error = probe(&shell("echo canary >&2; exit 3").with_nagios_codes()).await.unwrap_err();
    assert!(!error.to_string().contains("canary") && !error.chain().to_string().contains("canary"));
}

#[tokio::test]
async fn a_program_that_is_not_there_is_said_to_be_missing() {
    let error = probe(&ExecCheck::new("x", "/no/such/program")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ToolMissing);
}

#[test]
fn a_local_program_is_of_the_tier_process() {
    assert_eq!(shell("true").tiers(), [Tier::Ping]);
    assert_eq!(shell("true").local().tiers(), [Tier::Process]);
    let check = ExecCheck::new("-", Path::new("relative")).with_exit_codes([300]);
    let found: Vec<String> = check.faults().into_iter().map(|fault| fault.code).collect();
    assert_eq!(found, ["exec.id", "exec.program.relative", "exec.codes"]);
}
