//! `stackctl health --watch`: lines for programs, a table on a terminal.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use stackkit_fixtures::RedisFixture;
use tokio::runtime::Runtime;

use crate::site::Site;
use crate::tool::{Test, command, example, system_command};

/// What this file tests.
pub(crate) const TESTS: &[Test] = &[
    Test::new("each_change_is_a_line", each_change_is_a_line).needs(&["redis"]),
    Test::new("a_reader_that_leaves_ends_it", a_reader_that_leaves_ends_it).needs(&["redis"]),
    Test::new("a_terminal_gets_a_table_and_its_screen_back", a_terminal_gets_a_table_and_its_screen_back)
        .needs(&["script"]),
];

fn redis() -> (Runtime, RedisFixture) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let redis = runtime.block_on(stackkit_fixtures::redis()).unwrap();
    (runtime, redis)
}

fn watch(redis: &RedisFixture, options: &[&str]) -> Child {
    let args = [options, &["--service", "cache=env:CACHE_URL", "health", "--watch"]].concat();
    command("stackctl", &args).env("CACHE_URL", redis.url()).spawn().unwrap()
}

fn line(lines: &mut impl BufRead) -> String {
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    line
}

fn interrupt(child: &Child) {
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), Signal::INT).unwrap();
}

fn each_change_is_a_line() {
    let (runtime, mut redis) = redis();
    let mut json = watch(&redis, &["--json"]);
    let mut text = watch(&redis, &[]);
    let mut objects = BufReader::new(json.stdout.take().unwrap());
    let mut words = BufReader::new(text.stdout.take().unwrap());
    let mut change = || serde_json::from_str::<Value>(&line(&mut objects)).unwrap();
    let first = change();
    assert_eq!((&first["event"], &first["service"]), (&"transition".into(), &"cache".into()), "{first}");
    assert_eq!((&first["from"], &first["to"]), (&"unknown".into(), &"healthy".into()), "{first}");
    let first = line(&mut words);
    assert!(first.contains("Z stack: cache turned from unknown to healthy"), "{first}");

    runtime.block_on(redis.stop()).unwrap();
    let second = change();
    assert_eq!((&second["to"], &second["failure"]["kind"]), (&"unhealthy".into(), &"unreachable".into()), "{second}");
    let second = line(&mut words);
    assert!(second.contains("cache turned from healthy to unhealthy: ") && !second.contains('\x1b'), "{second}");
    for mut child in [json, text] {
        interrupt(&child);
        assert_eq!(child.wait().unwrap().code(), Some(130));
    }
}

fn a_reader_that_leaves_ends_it() {
    let (runtime, mut redis) = redis();
    let mut child = watch(&redis, &[]);
    drop(line(&mut BufReader::new(child.stdout.take().unwrap())));
    runtime.block_on(redis.stop()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

fn a_terminal_gets_a_table_and_its_screen_back() {
    let site = Site::new(8);
    let args = site.args(&["health", "--watch"]).join(" ");
    let line = format!("stty cols 100 rows 20; exec {} {args}", example("stackctl").display());
    let mut script = system_command("script", &["-qefc", &line, "/dev/null"]);
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).env_remove("NO_COLOR").spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut seen = Vec::new();
    let mut until = |wanted: &str, stdout: &mut dyn Read| {
        let mut buffer = [0; 4096];
        while !String::from_utf8_lossy(&seen).contains(wanted) {
            let count = stdout.read(&mut buffer).unwrap();
            assert!(count > 0, "it ended before {wanted:?}: {}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&buffer[..count]);
        }
    };
    until("\x1b[?1049h\x1b[?25l", &mut stdout);
    until("HEALTHY\x1b[0m\x1b[1m  shop", &mut stdout);
    until("\x1b[1muploads \x1b[0m\x1b[32mhealthy", &mut stdout);
    // What a person's Ctrl-C is to the terminal.
    child.stdin.take().unwrap().write_all(b"\x03").unwrap();
    until("\x1b[?25h\x1b[?1049l", &mut stdout);
    until("interrupted; nothing is half-written", &mut stdout);
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
