//! The process runner with real children.

use std::path::Path;
use std::time::Duration;

use stackkit_core::process::{OUTPUT_BYTES_MAX, Tool};
use stackkit_core::{ErrorKind, Secret};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const LIMIT: Duration = Duration::from_secs(20);

fn shell(script: &str) -> Tool {
    Tool::new("/bin/sh").arg("-c").arg(script)
}

async fn until_gone(pid: &str) {
    let gone = async {
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        // A zombie that nobody reaped would keep its folder: waiting for the folder waits for the reaping too.
        while Path::new("/proc").join(pid).exists() {
            tick.tick().await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.expect("the process is still there");
}

#[tokio::test]
async fn a_failed_tool_tells_status_and_stderr_without_its_secret() {
    let secret = Secret::new("canary-6152");
    let tool = shell("echo \"refused $TOKEN\" >&2; exit 3").secret_env("TOKEN", &secret);
    let debug = format!("{tool:?}");
    let error = tool.output(LIMIT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ToolFailed);
    assert!(error.to_string().contains("status=exit 3"), "{error}");
    assert!(error.chain().to_string().contains("refused ***"), "{:?}", error.chain());
    assert!(!format!("{debug}{error:?}").contains(secret.expose()));
}

#[tokio::test]
async fn a_signal_is_told() {
    let error = shell("kill -9 $$").output(LIMIT).await.unwrap_err();
    assert!(error.to_string().contains("status=signal 9"), "{error}");
}

#[tokio::test]
async fn a_flood_on_stderr_does_not_block_and_only_its_end_is_kept() {
    let mut child = shell("yes | head -c 3000000 >&2; echo the-end >&2; exit 1").spawn().unwrap();
    let error = tokio::time::timeout(LIMIT, child.wait()).await.unwrap().unwrap_err();
    let chain = error.chain().to_string();
    assert!(chain.ends_with("the-end") && chain.len() < 5000, "{} bytes", chain.len());
}

#[tokio::test]
async fn dropping_kills_grandchildren_too() {
    let mut child = shell("cat & echo $!; wait").stdin_piped().stdout_piped().spawn().unwrap();
    let mut stdout = child.take_stdout().unwrap();
    let mut pid = String::new();
    while !pid.ends_with('\n') {
        pid.push(char::from(stdout.read_u8().await.unwrap()));
    }
    let own = child.id().unwrap().to_string();
    drop(child);
    assert!(!Path::new("/proc").join(own).exists(), "the child was not reaped");
    until_gone(pid.trim()).await;
}

#[tokio::test]
async fn bytes_go_in_and_come_out() {
    let mut child = Tool::new("/bin/cat").stdin_piped().stdout_piped().spawn().unwrap();
    let (mut stdin, mut stdout) = (child.take_stdin().unwrap(), child.take_stdout().unwrap());
    stdin.write_all(b"hello").await.unwrap();
    drop(stdin);
    let mut out = String::new();
    stdout.read_to_string(&mut out).await.unwrap();
    assert_eq!(out, "hello");
    child.wait().await.unwrap();
}

#[tokio::test]
async fn a_missing_program_is_tool_missing() {
    assert_eq!(Tool::new("/no/such/tool").spawn().unwrap_err().kind(), ErrorKind::ToolMissing);
}

#[tokio::test]
async fn a_tool_that_does_not_end_is_killed_at_its_limit() {
    let error = shell("exec cat").stdin_piped().output(Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn too_much_output_is_refused_at_once() {
    let endless = shell("trap '' PIPE; yes; exec cat").stdin_piped();
    let error = endless.output(LIMIT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ToolFailed);
    assert!(error.to_string().contains(&OUTPUT_BYTES_MAX.to_string()), "{error}");
    let most = shell(&format!("yes | head -c {OUTPUT_BYTES_MAX}")).output(LIMIT).await.unwrap();
    assert_eq!(u64::try_from(most.len()).unwrap(), OUTPUT_BYTES_MAX);
}

#[tokio::test]
async fn a_missing_directory_is_not_a_missing_tool() {
    let error = shell("true").directory("/no/such/folder").spawn().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("directory=/no/such/folder"), "{error}");
}

#[tokio::test]
async fn the_end_of_a_child_ends_its_group() {
    let mut child = shell("(trap '' TERM; exec sleep 1000) & echo $!").stdout_piped().spawn().unwrap();
    let mut stdout = child.take_stdout().unwrap();
    let mut pid = String::new();
    while !pid.ends_with('\n') {
        pid.push(char::from(stdout.read_u8().await.unwrap()));
    }
    // The grandchild holds standard error open, and would be waited for if it lived on.
    child.wait().await.unwrap();
    until_gone(pid.trim()).await;
}

#[tokio::test]
async fn a_child_that_reads_nothing_breaks_the_pipe_and_tells_its_own_failure() {
    let mut child = shell("exec <&-; echo no room >&2; exit 7").stdin_piped().spawn().unwrap();
    let mut stdin = child.take_stdin().unwrap();
    let write = async { while stdin.write_all(&[0; 65536]).await.is_ok() {} };
    tokio::time::timeout(LIMIT, write).await.expect("the pipe never broke");
    let error = child.wait().await.unwrap_err();
    assert!(error.to_string().contains("status=exit 7"), "{error}");
    assert!(error.chain().to_string().ends_with("no room"), "{:?}", error.chain());
}

#[tokio::test]
async fn a_child_without_standard_error_is_killed_as_any_other() {
    let mut child = shell("exec 2>&-; trap '' TERM; echo ready; while :; do read line || sleep 1000; done");
    child = child.stdout_piped();
    let mut child = child.spawn().unwrap();
    let mut stdout = child.take_stdout().unwrap();
    assert_eq!(stdout.read_u8().await.unwrap(), b'r');
    let pid = child.id().unwrap();
    drop(child);
    assert!(!Path::new("/proc").join(pid.to_string()).exists(), "the child was not reaped");
}

#[test]
fn a_child_may_be_dropped_outside_its_runtime_and_after_it() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let spawn = || runtime.block_on(async { shell("exec cat").stdin_piped().stdout_piped().spawn().unwrap() });
    let (elsewhere, later) = (spawn(), spawn());
    let pids = [elsewhere.id().unwrap(), later.id().unwrap()];
    std::thread::spawn(move || drop(elsewhere)).join().unwrap();
    runtime.shutdown_background();
    drop(later);
    for pid in pids {
        assert!(!Path::new("/proc").join(pid.to_string()).exists(), "{pid} was not reaped");
    }
}

#[tokio::test]
async fn a_variable_that_is_set_wins_over_its_removal() {
    let tool = shell("echo \"$SHOP ${HOME-none}\"").env("SHOP", "open").env_remove("SHOP").env_remove("HOME");
    assert_eq!(tool.output(LIMIT).await.unwrap(), b"open none\n");
}
