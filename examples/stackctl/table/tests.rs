use std::sync::Arc;
use std::time::Duration;

use stackkit::health::Axis;
use stackkit::{Clock, Error, ErrorKind, Monitor, Phase, ServiceExt as _, Stack};
use stackkit_fixtures::MemoryStore;

use super::*;

fn now() -> Timestamp {
    "2026-11-21T18:15:30Z".parse().unwrap()
}

/// A healthy stack in which `api` needs `postgres`, with a day of history.
async fn shop() -> (Report, History) {
    let store = |id: &str| MemoryStore::new(ServiceId::new(id).unwrap());
    let stack = Stack::builder("shop").clock(Clock::fixed(now()));
    let stack = stack.service(store("api").after(["postgres"])).service(store("postgres")).build().unwrap();
    let monitor = Monitor::start(&stack);
    let mut report = Report::clone(&*monitor.wait_ready(Duration::from_secs(60)).await.unwrap());
    let mut history = monitor.history("postgres").unwrap();
    let one = history.minutes[0];
    let minute = |ms: u32| {
        let mut minute = one;
        (minute.status, minute.latency_p50_ms) = (Some(Status::Healthy), Some(f64::from(ms)));
        minute
    };
    history.minutes = (0..1440).map(|number| minute(1 + number % 8)).collect();
    history.availability.day_ratio = Some(0.99989);
    for slot in &mut report.services {
        let service = Arc::make_mut(slot);
        service.since = now() - Duration::from_secs(7500);
        service.latency_ms = Some(0.42);
        service.exceeded.clear();
        service.observation = None;
    }
    (report, history)
}

fn lines((report, history): &(Report, History), width: usize, height: usize, is_coloured: bool) -> Vec<String> {
    let view = View { report, now: now(), history: &|_| Some(history.clone()) };
    render(&view, Paper { width, height, is_coloured })
}

fn change(shop: &mut (Report, History), id: &str, change: impl FnOnce(&mut ServiceReport)) {
    change(Arc::make_mut(shop.0.services.iter_mut().find(|service| service.id == id).unwrap()));
}

#[tokio::test]
async fn a_row_says_state_time_latency_and_availability() {
    let shop = shop().await;
    let table = lines(&shop, 80, 24, false).join("\n");
    let wanted = "\
✔ HEALTHY  shop  ready  2026-11-21 18:15:30 UTC

  service  state       for           latency last hour                      24 h
✔ postgres healthy     2 h 5 min     0.42 ms ▁▂▃▄▅▆▇█▁▂▃▄▅▆▇█▁▂▃▄▅▆▇█▁▂ 99.98 %";
    let start: Vec<&str> = table.lines().take(4).collect();
    let columns = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let wanted: Vec<&str> = wanted.lines().collect();
    assert_eq!(start[0], wanted[0]);
    assert_eq!(columns(start[2]), columns(wanted[2]));
    assert_eq!(columns(start[3])[..6], columns(wanted[3])[..6]);
    assert!(start[3].contains("▁▂▃▄▅▆▇█") && start[3].ends_with("99.98 %"), "{table}");
    assert!(table.lines().nth(4).unwrap().starts_with("✔ api "), "what it needs comes first\n{table}");
}

#[tokio::test]
async fn a_cause_is_told_with_its_failure_and_what_to_do() {
    let mut shop = shop().await;
    let error = Error::new(ErrorKind::Unreachable, "nothing accepts connections there").with_phase(Phase::Connect);
    change(&mut shop, "postgres", |postgres| {
        postgres.status = Status::Unhealthy;
        postgres.failure = Some((&error).into());
        let finding = Finding::new("disk.full", Axis::Risk, Severity::Warning, "the disk is full soon");
        postgres.exceeded = vec![finding.with_hint("free it")];
    });
    change(&mut shop, "api", |api| {
        api.status = Status::Unknown;
        api.failure = Some((&error).into());
        api.caused_by = vec![ServiceId::new("postgres").unwrap()];
    });
    let table = lines(&shop, 100, 24, false).join("\n");
    assert!(table.contains("\n✖ postgres unhealthy"), "{table}");
    assert!(table.contains("no answer"), "{table}");
    assert!(table.contains("\n    warning: the disk is full soon\n      free it\n"), "{table}");
    assert_eq!(table.matches("unreachable in phase connect: nothing accepts connections there").count(), 1, "{table}");
    assert!(table.contains("\n? api      unknown") && table.ends_with("\n    because of postgres"), "{table}");
}

#[tokio::test]
async fn it_fits_every_terminal() {
    let mut shop = shop().await;
    change(&mut shop, "api", |api| {
        let finding = Finding::new("a.b", Axis::Risk, Severity::Critical, "many words ".repeat(30));
        api.exceeded = vec![finding.with_hint("a-long-word-without-any-space-".repeat(10))];
    });
    for width in 1..200 {
        for height in [1, 3, 24] {
            let table = lines(&shop, width, height, false);
            assert!(table.len() <= height, "{width} {height}");
            let widest = table.iter().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= width.max(WIDTH_MIN), "{width} {table:#?}");
        }
    }
    assert!(lines(&shop, 80, 6, false).last().unwrap().contains("more lines"));
}

#[tokio::test]
async fn what_does_not_fit_is_not_what_is_wrong() {
    let mut shop = shop().await;
    change(&mut shop, "api", |api| {
        api.status = Status::Unhealthy;
        api.exceeded = vec![Finding::new("a.b", Axis::Ready, Severity::Critical, "why")];
    });
    let at = |height, id: &str| {
        let table = lines(&shop, 80, height, false);
        table.iter().position(|line| line.contains(&format!(" {id} ")))
    };
    assert!(at(24, "postgres") < at(24, "api"), "what is needed comes first where there is room");
    assert_eq!((at(5, "api"), at(5, "postgres")), (Some(3), None));
}

#[tokio::test]
async fn colours_are_only_there_when_asked_for() {
    let mut shop = shop().await;
    change(&mut shop, "api", |api| api.maintenance_until = Some(now()));
    let plain = lines(&shop, 80, 24, false).join("\n");
    let coloured = lines(&shop, 80, 24, true).join("\n");
    assert!(!plain.contains('\x1b') && plain.contains("■ api      maintenance"), "{plain}");
    assert!(coloured.contains("\x1b[32m✔ HEALTHY\x1b[0m"), "{coloured}");
    let mut stripped = coloured;
    for look in [Look::Bold, Look::Faint, Look::Good, Look::Warning, Look::Bad, Look::Work] {
        stripped = stripped.replace(&format!("\x1b[{}m", look.code()), "");
    }
    assert_eq!(stripped.replace("\x1b[0m", "").lines().map(str::trim_end).collect::<Vec<_>>().join("\n"), plain);
}

#[test]
fn spans_and_ratios_are_words() {
    let age_of = |seconds: u64| age(now() - Duration::from_secs(seconds), now());
    assert_eq!([5, 65, 7500, 100_000].map(age_of), ["5 s", "1 min", "2 h 5 min", "1 d 3 h"]);
    assert_eq!([1.0, 0.99999, 0.5].map(percent), ["100 %", "99.99 %", "50.00 %"]);
}
