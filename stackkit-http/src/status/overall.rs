//! What is said of the whole stack, large.

use jiff::Timestamp;
use stackkit_core::Report;
use stackkit_core::health::{ServiceReport, Status};

use super::html::{Text, absolute, ago, class, icon, moment, word};

/// How many services of one state the sentence names before the last one; the rows name all.
const NAMED_MAX: usize = 3;

/// The head of the page: the state in one word, and one sentence.
pub(super) fn html(report: &Report, now: Timestamp) -> String {
    let class = class(report.status);
    let mut chips = vec![match (report.draining, report.ready) {
        (true, _) => chip("drain", "Draining: it takes no new requests"),
        (false, true) => chip("ready", "Ready for requests"),
        (false, false) => chip("unready", "Not ready for requests"),
    }];
    for service in &report.services {
        if let Some(until) = service.maintenance_until {
            let text = format!("{} in maintenance until {}", Text(service.id.as_str()), moment(until, now));
            chips.push(chip("maintenance", &text));
        }
    }
    format!(
        r#"<section class="hero {class}" id="overall" data-now="{now}" data-icon="{favicon}" aria-label="Overall state"><p class="stack">{stack}</p><div id="verdict" role="status" aria-live="polite"><h1>{icon}<span>{word}</span></h1><p class="sentence">{sentence}</p></div><div class="facts"><ul class="chips" role="list">{chips}</ul><p class="made" id="made">As of <time datetime="{at}">{absolute}</time>, <span>{ago} ago</span></p></div></section>"#,
        stack = Text(&report.stack),
        icon = icon(class),
        word = word(report.status),
        sentence = sentence(report),
        chips = chips.concat(),
        at = report.generated_at,
        favicon = favicon(report.status),
        absolute = absolute(report.generated_at),
        ago = ago(report.generated_at, now),
    )
}

fn chip(class: &str, text: &str) -> String {
    format!(r#"<li class="chip {class}">{text}</li>"#)
}

/// Which services are not healthy, the worst first; a cause and not what it causes.
fn sentence(report: &Report) -> String {
    let services = || report.services.iter().map(AsRef::as_ref);
    let is_told = |service: &&ServiceReport| service.counts_now() && service.caused_by.is_empty();
    let bad = |status: Status| -> Vec<&ServiceReport> {
        services().filter(is_told).filter(|service| service.status == status).collect()
    };
    let worst_first = [Status::Unhealthy, Status::Unknown, Status::Degraded].map(|status| (status, bad(status)));
    let counting = services().filter(|service| service.counts_now()).count();
    let mut parts: Vec<String> = worst_first
        .iter()
        .filter(|(_, bad)| !bad.is_empty())
        .map(|(status, bad)| are(*status, bad, counting))
        .collect();
    match services().filter(|service| !service.caused_by.is_empty()).count() {
        0 => {}
        1 => parts.push("1 service suffers from it".to_owned()),
        suffering => parts.push(format!("{suffering} services suffer from it")),
    }
    let all = report.services.len();
    match counting {
        _ if !parts.is_empty() => format!("{}.", parts.join("; ")),
        0 if all == 0 => "Nothing is watched.".to_owned(),
        0 => "Every service is in maintenance.".to_owned(),
        _ if counting < all => "Every other service is healthy.".to_owned(),
        1 => "The one service is healthy.".to_owned(),
        _ => format!("All {counting} services are healthy."),
    }
}

/// `web, api and cache are unknown`, of at least one service.
fn are(status: Status, services: &[&ServiceReport], of: usize) -> String {
    let name = |service: &&ServiceReport| Text(service.id.as_str()).to_string();
    match services {
        [only] => format!("{} is {status}", name(only)),
        all if all.len() == of => format!("all {of} services are {status}"),
        [first @ .., last] if first.len() < NAMED_MAX => {
            format!("{} and {} are {status}", first.iter().map(name).collect::<Vec<_>>().join(", "), name(last))
        }
        many => format!("{} services are {status}", many.len()),
    }
}

/// The icon of the browser's tab: the state's shape in its colour.
pub(super) fn favicon(status: Status) -> String {
    let (colour, shape) = match status {
        Status::Healthy => ("0b7a4b", "%3Ccircle cx='8' cy='8' r='7'/%3E"),
        Status::Degraded => ("e8a317", "%3Cpath d='M8 1l7 13H1z'/%3E"),
        Status::Unknown => ("6b7885", "%3Cpath d='M8 1l7 7-7 7-7-7z'/%3E"),
        Status::Unhealthy => ("c4271b", "%3Cpath d='M2 2h12v12H2z'/%3E"),
    };
    format!(
        "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16' fill='%23{colour}'%3E{shape}%3C/svg%3E"
    )
}
