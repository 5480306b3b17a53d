//! What `stackctl` makes of odd command lines, and what its output promises to other programs.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use stackkit_fixtures::{PostgresOptions, RedisOptions, postgres_server, redis_with, wait_until};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::site::Site;
use crate::tool::{Outcome, Test, command, finish, stackctl};

/// What this file tests.
pub(crate) const TESTS: &[Test] = &[
    Test::new("what_is_odd_is_refused_without_its_password", what_is_odd_is_refused_without_its_password),
    Test::new("json_is_one_object_a_line", json_is_one_object_a_line),
    Test::new("a_reader_that_leaves_is_no_failure", a_reader_that_leaves_is_no_failure),
    Test::new("a_repository_inside_a_volume_is_refused", a_repository_inside_a_volume_is_refused),
    Test::new("a_restore_elsewhere_leaves_the_volume", a_restore_elsewhere_leaves_the_volume),
    Test::new("a_partial_backup_is_asked_for_by_its_id", a_partial_backup_is_asked_for_by_its_id),
    Test::new("a_signal_ends_serve", a_signal_ends_serve),
    Test::new("a_signal_drains_and_ends_serve", a_signal_drains_and_ends_serve),
    Test::new("a_transition_runs_a_program", a_transition_runs_a_program),
    Test::new("a_transition_is_posted", a_transition_is_posted),
    Test::new("services_need_others_and_are_waited_for_alone", services_need_others_and_are_waited_for_alone),
    Test::new("a_recovery_is_shown_and_done", a_recovery_is_shown_and_done).needs(&["postgres"]),
    Test::new("a_wrong_password_ends_the_waiting", a_wrong_password_ends_the_waiting).needs(&["postgres", "redis"]),
];

const CANARY: &str = "canary-41d2";
/// The most that a call on this machine may take.
const CALL_WAIT: Duration = Duration::from_secs(30);

fn what_is_odd_is_refused_without_its_password() {
    let secret = |url: &str| url.replace("SECRET", CANARY);
    for service in [
        "",
        "=file:///srv",
        "a=",
        "://host",
        "relative/path",
        "file://relative",
        "file:///srv/%zz",
        "env:",
        "env:STACKKIT_NOT_SET",
        "env:DB=postgres://app:SECRET@db/shop",
        "bad id=postgres://app:SECRET@db/shop",
        "postgres:/app:SECRET@db/shop",
        "gopher://app:SECRET@db",
        "redis://:SECRET@[::1/0",
        "redis://:SECRET@db:99999",
        "redis://:SECRET@db/x",
        "postgres://app:SECRET@db:port/shop",
        "postgres://app@db/shop?password=SECRET&connect_timeout=x",
    ] {
        let outcome = stackctl(&["--service", &secret(service), "health"]).expect(2);
        assert!(!outcome.text().contains(CANARY), "{outcome:?}");
        assert!(outcome.stdout.is_empty() && outcome.stderr.contains("error: "), "{outcome:?}");
    }
    let site = Site::new(8);
    for rest in [
        &["--stack", "a/b", "health"][..],
        &["--service", "uploads=file:///srv", "health"],
        &["backup"],
        &["backup", "--unencrypted", "--tag", ""],
        &["verify", "../../etc"],
        &["restore", "--only", "nobody", "--yes"],
        &["restore", "--plan", "--yes"],
        &["restore", "--to", "file:///srv", "--yes"],
        &["wait", "--timeout", "5"],
        &["serve", "--listen", "nowhere"],
    ] {
        let outcome = match rest[0] {
            "--stack" => stackctl(&[rest, &["--service", &format!("file://{}", site.volume().display())]].concat()),
            _ => site.run(rest),
        };
        assert_eq!(outcome.code, Some(2), "{rest:?}: {outcome:?}");
    }
    assert!(!site.repository().exists(), "a refused command made a repository");
    for url in ["", "relative", "file://relative", "s3://bucket", "env:STACKKIT_NOT_SET"] {
        stackctl(&["--repository", url, "list"]).expect(2);
    }
}

fn is_object(line: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(line).is_ok_and(|value| value.is_object())
}

fn json_is_one_object_a_line() {
    let site = Site::new(64 * 1024);
    let keys = site.folder.path().join("keys").display().to_string();
    let copy = format!("file://{}", site.folder.path().join("copy").display());
    for (rest, code) in [
        (&["--json", "health"][..], 0),
        (&["--json", "wait"], 0),
        (&["--json", "backup", "--unencrypted", "--tag", "two words"], 0),
        (&["--json", "list", "--all"], 0),
        (&["--json", "verify", "--level", "content"], 0),
        (&["--json", "restore", "--plan"], 0),
        (&["--json", "restore", "--yes"], 0),
        (&["--json", "keygen", "--out", &keys], 0),
        (&["--json", "copy", "--to", &copy, "--unencrypted"], 0),
        (&["--json", "verify", "20200101T000000Z-00000000"], 1),
        (&["--json", "restore"], 2),
    ] {
        let outcome = site.run(rest);
        assert_eq!(outcome.code, Some(code), "{rest:?}: {outcome:?}");
        assert_eq!(outcome.stdout.is_empty(), code != 0, "{rest:?}: {outcome:?}");
        assert!(outcome.stdout.lines().all(is_object), "{rest:?}: {outcome:?}");
        assert!(outcome.stderr.lines().all(is_object), "{rest:?}: {outcome:?}");
    }
    // Its answer depends on this machine's disk.
    let doctor = site.run(&["--json", "doctor"]);
    assert!(!doctor.stdout.is_empty() && doctor.stdout.lines().all(is_object), "{doctor:?}");
}

fn a_reader_that_leaves_is_no_failure() {
    let site = Site::new(8);
    site.backup().expect(0);
    for rest in [&["list"][..], &["--json", "list"], &["--json", "verify"], &["--help"]] {
        let args = site.args(rest);
        let mut child = command("stackctl", &args.iter().map(String::as_str).collect::<Vec<_>>()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        // How far it is goes to the other stream, which is still read.
        let said: Vec<&str> = stderr.lines().filter(|line| !line.contains(r#""event":"progress""#)).collect();
        assert_eq!((output.status.code(), said), (Some(0), Vec::new()), "{rest:?}");
    }
}

fn a_repository_inside_a_volume_is_refused() {
    let site = Site::new(8);
    let inside = site.volume().join("deep/repository");
    let service = format!("uploads=file://{}", site.volume().display());
    for repository in [format!("file://{}", inside.display()), inside.display().to_string()] {
        let outcome =
            stackctl(&["--service", &service, "--repository", &repository, "backup", "--unencrypted"]).expect(2);
        assert!(outcome.stderr.contains("uploads: the repository lies inside the volume"), "{outcome:?}");
        stackctl(&["--service", &service, "--repository", &repository, "restore", "--yes"]).expect(2);
    }
    assert!(!inside.exists());
}

fn a_restore_elsewhere_leaves_the_volume() {
    let site = Site::new(64 * 1024);
    site.backup().expect(0);
    let before = site.content();
    let elsewhere = site.folder.path().join("elsewhere");
    let to = format!("uploads=file://{}", elsewhere.display());
    let plan = site.run(&["restore", "--to", &to, "--plan"]).expect(0);
    assert!(plan.stdout.contains("elsewhere") && !elsewhere.exists(), "{}", plan.stdout);
    site.run(&["restore", "--to", &to, "--yes"]).expect(0);
    assert_eq!(site.content(), before);
    assert_eq!(std::fs::read(elsewhere.join("file-0")).unwrap(), std::fs::read(site.volume().join("file-0")).unwrap());
}

fn a_partial_backup_is_asked_for_by_its_id() {
    let site = Site::new(64 * 1024);
    let nobody = format!("cache=redis+unix://{}/nobody.sock", site.folder.path().display());
    let with_cache = ["--service", &nobody];
    site.run(&[&with_cache[..], &["backup", "--unencrypted"]].concat()).expect(3);
    assert_eq!(site.listed_count(), 0);
    let partial = site.run(&[&with_cache[..], &["backup", "--unencrypted", "--partial"]].concat()).expect(3);
    assert_eq!(partial.stderr.matches("failed: cache: ").count(), 1, "{partial:?}");
    site.run(&["verify"]).expect(1);
    site.run(&["restore", "--yes"]).expect(1);
    let list = site.run(&["--json", "list"]).expect(0);
    let row: serde_json::Value = serde_json::from_str(&list.stdout).unwrap();
    assert_eq!(row["state"], "partial");
    let id = row["id"].as_str().unwrap();
    site.run(&["verify", id]).expect(0);
    site.run(&[&with_cache[..], &["restore", id, "--only", "cache", "--yes"]].concat()).expect(1);
    let before = site.content();
    std::fs::remove_file(site.volume().join("file-0")).unwrap();
    site.run(&[&with_cache[..], &["restore", id, "--yes"]].concat()).expect(0);
    assert_eq!(site.content(), before);
}

/// What a served path answers: status and body.
fn answer(url: &str, path: &str, headers: &str) -> (u16, String) {
    let mut stream = std::net::TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n{headers}\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    (text[9..12].parse().unwrap(), text)
}

/// What the gRPC health service says of a name.
fn grpc_check(url: &str, service: &str) -> Result<ServingStatus, tonic::Code> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let url = url.to_owned();
    runtime.block_on(async {
        let channel = tonic::transport::Channel::from_shared(url).unwrap().timeout(CALL_WAIT).connect().await.unwrap();
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = HealthClient::new(channel).check(request).await;
        answer.map(|answer| answer.into_inner().status()).map_err(|status| status.code())
    })
}

fn a_signal_drains_and_ends_serve() {
    let site = Site::new(8);
    let token = site.volume().parent().unwrap().join("token");
    std::fs::write(&token, format!("{CANARY}\n")).unwrap();
    let options = [
        "--operator-listen",
        "127.0.0.1:0",
        "--details-token-file",
        token.to_str().unwrap(),
        "--drain",
        "1h",
        "--grpc-listen",
        "127.0.0.1:0",
    ];
    let args = site.args(&[&["--json", "serve", "--listen", "127.0.0.1:0"][..], &options].concat());
    let mut child = command("stackctl", &args.iter().map(String::as_str).collect::<Vec<_>>()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let serving: serde_json::Value = serde_json::from_str(&first).unwrap();
    let (url, operators) = (serving["url"].as_str().unwrap(), serving["operator_url"].as_str().unwrap());
    let mut told = BufReader::new(child.stderr.take().unwrap());
    // The first transition is told once the volume was looked at.
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    assert!(is_object(&line) && line.contains("\"transition\"") && line.contains("healthy"), "{line}");
    let endpoint = site.volume().display().to_string();
    let shows = |url: &str, headers: &str| answer(url, "/health", headers).1.contains(&endpoint);
    assert_eq!(answer(url, "/readyz", "").0, 200);
    assert!(!shows(url, ""), "details are for those who know the token");
    assert!(shows(url, &format!("Authorization: Bearer {CANARY}\r\n")) && shows(operators, ""));
    let id = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    let grpc = serving["grpc_url"].as_str().unwrap();
    assert_eq!(grpc_check(grpc, ""), Ok(ServingStatus::Serving));
    assert_eq!(grpc_check(grpc, "nobody"), Err(tonic::Code::NotFound));
    kill_process(id, Signal::TERM).unwrap();
    line.clear();
    told.read_line(&mut line).unwrap();
    assert!(line.contains("draining"), "{line}");
    assert_eq!((answer(url, "/readyz", "").0, answer(url, "/livez", "").0), (503, 200));
    assert_eq!(grpc_check(grpc, ""), Ok(ServingStatus::NotServing));
    assert_eq!(grpc_check(grpc, "live"), Ok(ServingStatus::Serving));
    kill_process(id, Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "the second signal ends it at once");
}

fn a_signal_ends_serve() {
    let site = Site::new(8);
    let args = site.args(&["--json", "serve", "--listen", "127.0.0.1:0"]);
    let mut child = command("stackctl", &args.iter().map(String::as_str).collect::<Vec<_>>()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(is_object(&first) && first.contains("http://127.0.0.1:"), "{first}");
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

fn a_transition_runs_a_program() {
    let site = Site::new(8);
    let folder = site.volume().parent().unwrap().to_owned();
    let (program, seen) = (folder.join("told"), folder.join("seen"));
    let script =
        format!("#!/bin/sh\necho \"$STACKKIT_SERVICE $STACKKIT_TO\" > {0}.new && mv {0}.new {0}\n", seen.display());
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let args = site.args(&["serve", "--listen", "127.0.0.1:0", "--on-change", program.to_str().unwrap()]);
    let mut child = command("stackctl", &args.iter().map(String::as_str).collect::<Vec<_>>()).spawn().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let told = async || std::fs::read_to_string(&seen).ok();
    let text = runtime.block_on(wait_until("the program is run", Duration::from_secs(30), told)).unwrap();
    assert_eq!(text, "uploads healthy\n");
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

fn a_transition_is_posted() {
    let site = Site::new(8);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let file = site.volume().parent().unwrap().join("webhook");
    std::fs::write(&file, format!("http://{}/{CANARY}\n", listener.local_addr().unwrap())).unwrap();
    let args = site.args(&["serve", "--listen", "127.0.0.1:0", "--webhook-url-file", file.to_str().unwrap()]);
    let mut child = command("stackctl", &args.iter().map(String::as_str).collect::<Vec<_>>()).spawn().unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut text = vec![0; 4096];
    let mut read = 0;
    while !String::from_utf8_lossy(&text[..read]).contains("\"uploads\"") {
        let more = stream.read(&mut text[read..]).unwrap();
        assert_ne!(more, 0, "{}", String::from_utf8_lossy(&text[..read]));
        read += more;
    }
    assert!(text.starts_with(format!("POST /{CANARY} HTTP/1.1\r\n").as_bytes()));
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut told = String::new();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(!told.contains(CANARY), "{told}");
}

fn services_need_others_and_are_waited_for_alone() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let web = format!("web=tcp://{}", listener.local_addr().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let beat = folder.path().join("worker.beat");
    let worker = format!("worker=heartbeat:{}", beat.display());
    let stack = ["--json", "--service", &web, "--service", &worker, "--after", "worker=web"];
    let with = |rest: &[&str]| stackctl(&[&stack[..], rest].concat());
    with(&["wait", "--only", "web", "--timeout", "30s"]).expect(0);
    with(&["wait", "--timeout", "300ms"]).expect(1);
    let health = with(&["health"]).expect(1);
    let report: serde_json::Value = serde_json::from_str(&health.stdout).unwrap();
    let worker = report["services"].as_array().unwrap().iter().find(|service| service["id"] == "worker").unwrap();
    assert_eq!(worker["dependencies"], serde_json::json!(["web"]));
    with(&["health", "--optional", "worker"]).expect(0);
    // A port that accepts and says nothing is no web server.
    let silent = web.replace("tcp:", "http:");
    stackctl(&["--service", &silent, "wait", "--timeout", "300ms"]).expect(1);
    std::fs::write(&beat, "").unwrap();
    with(&["wait", "--timeout", "30s"]).expect(0);
    for wrong in
        [&["--optional", "moon", "health"][..], &["--after", "web=moon", "health"], &["wait", "--only", "moon"]]
    {
        with(wrong).expect(2);
    }
}

fn a_wrong_password_ends_the_waiting() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (postgres, redis) = runtime.block_on(async {
        let postgres = postgres_server(PostgresOptions::new().with_tcp(CANARY)).await.unwrap();
        (postgres, redis_with(RedisOptions::new().with_tcp().with_password(CANARY)).await.unwrap())
    });
    for right in [postgres.tcp_url_of("postgres").unwrap(), redis.tcp_url().unwrap().to_owned()] {
        let wrong = right.replace(CANARY, "not-the-password");
        assert_ne!(right, wrong, "the test would test nothing");
        wait_for(&right).expect(0);
        let outcome = wait_for(&wrong).expect(1);
        assert!(outcome.stderr.contains("\"kind\":\"unauthenticated\""), "{outcome:?}");
        assert!(!outcome.text().contains("not-the-password"), "{outcome:?}");
    }
}

fn a_recovery_is_shown_and_done() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let server = runtime.block_on(postgres_server(PostgresOptions::new())).unwrap();
    let left = "shop__sk_20261121_141303_007";
    for name in ["shop", left] {
        runtime.block_on(server.create_database(name)).unwrap();
    }
    let service = format!("shop={}", server.url_of("shop"));
    let recover = |more: &[&str]| stackctl(&[&["--json", "--service", &service, "recover", "shop"], more].concat());
    let steps = |outcome: Outcome| {
        let plan: serde_json::Value = serde_json::from_str(&outcome.expect(0).stdout).unwrap();
        plan.get("steps").or(plan.get("done")).unwrap().as_array().unwrap().clone()
    };
    let planned = steps(recover(&["--plan"]));
    assert_eq!((planned.len(), planned[0]["database"].as_str()), (1, Some(left)));
    // Nobody can be asked.
    recover(&[]).expect(2);
    assert_eq!(steps(recover(&["--yes"])), planned);
    assert!(steps(recover(&["--plan"])).is_empty());
    stackctl(&["recover", "nobody", "--plan"]).expect(2);
}

fn wait_for(url: &str) -> Outcome {
    let mut command: Command = command("stackctl", &["--json", "--service", "env:URL", "wait", "--timeout", "10m"]);
    command.env("URL", url).stdin(Stdio::null());
    finish(command)
}
