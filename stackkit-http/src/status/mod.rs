//! `/status`: a report as one self-contained page. Pure: no clock, no I/O.
//!
//! The page is whole without scripts, and reloads itself then. With scripts it listens to `status/events`, beside itself, for
//! server-sent events: each message is a [`fragment`], which the script compares with what is shown; an event `ping` says that
//! the stream lives. Without either for [`SILENCE_MAX`] the page says that the connection is lost.

mod charts;
mod html;
mod overall;
mod row;

use std::time::Duration;

use jiff::Timestamp;
use stackkit_core::Report;
use stackkit_core::health::{History, ServiceReport, Status};

use html::{Text, word};
use row::Row;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const ICONS: &str = include_str!("icons.svg");

/// After how long without an event the page says that the connection is lost. The stream sends a `ping` at least every third of
/// it. The script has the same number.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(30);

/// What a browser may do for the page: run its one style and its one script, ask its own server for events, show its icon. A
/// test compares the hashes with the files.
pub(crate) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; \
     style-src 'sha256-MkEwUVWURkY542C4bx0VH3WGJjTCoCcU/U/ytI2fzHM='; \
     script-src 'sha256-Dnj5uGCZi/bHFSeojsHxgn2u7R4aHTOeAIvTe5N1+IA='; \
     connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the page shows.
pub(crate) struct PageView<'a> {
    /// The stack at one moment.
    pub(crate) report: &'a Report,
    /// The moment at which it is shown; ages count up to it.
    pub(crate) now: Timestamp,
    /// The last day of a service, by its name.
    pub(crate) history: &'a dyn Fn(&str) -> Option<History>,
    /// Whether failures, findings, endpoints and backups are shown, or states alone.
    pub(crate) details: bool,
    /// Whether a token shows what is hidden: the page links to where a browser asks for it.
    pub(crate) has_token: bool,
}

/// The whole document.
pub(crate) fn page(view: &PageView<'_>) -> String {
    let report = view.report;
    format!(
        r##"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<noscript><meta http-equiv="refresh" content="15"></noscript>
<title>{word} · {stack}</title>
<link rel="icon" id="favicon" href="{favicon}">
<style>{STYLE}</style>
</head>
<body>
{ICONS}
<a class="skip" href="#services">Skip to the services</a>
<main id="page">{fragment}</main>
<footer id="link"><span class="dot" aria-hidden="true"></span><span role="status" id="link-text">{still}</span></footer>
<script>{SCRIPT}</script>
</body>
</html>
"##,
        word = word(report.status),
        stack = Text(&report.stack),
        favicon = overall::favicon(report.status),
        fragment = fragment(view),
        still = "Without scripts the page reloads every 15 s.",
    )
}

/// What changes from report to report: the part of the document that an event carries. It has no line breaks but those of
/// values.
pub(crate) fn fragment(view: &PageView<'_>) -> String {
    let report = view.report;
    let rows: String = report
        .dependencies_first()
        .into_iter()
        .map(|service| {
            let history = (view.history)(service.id.as_str());
            Row { service, history: history.as_ref(), now: view.now, details: view.details }.html()
        })
        .collect();
    let hidden = match (view.details, view.has_token) {
        (true, _) => "",
        (false, false) => r#"<p class="faint hidden">Details are hidden in this view.</p>"#,
        (false, true) => {
            r#"<p class="faint hidden">Details are hidden in this view. <a href="?login">Show them with the token</a></p>"#
        }
    };
    format!(
        r#"{overall}<section id="services" tabindex="-1" aria-labelledby="services-title"><div class="title"><h2 id="services-title">Services</h2><p class="faint">{tally}</p></div><ol class="rows" role="list">{rows}</ol>{hidden}</section>"#,
        overall = overall::html(report, view.now),
        tally = tally(report),
    )
}

/// How many services are in each state, the worst first; one in maintenance counts as that alone.
fn tally(report: &Report) -> String {
    let states = [Status::Unhealthy, Status::Unknown, Status::Degraded, Status::Healthy];
    let count = |is_counted: &dyn Fn(&ServiceReport) -> bool| report.services.iter().filter(|s| is_counted(s)).count();
    let told =
        states.map(|status| (count(&|service| service.counts_now() && service.status == status), status.as_str()));
    let maintained = (count(&|service| !service.counts_now()), "in maintenance");
    let parts = told.into_iter().chain([maintained]).filter(|(count, _)| *count > 0);
    parts.map(|(count, state)| format!("{count} {state}")).collect::<Vec<_>>().join(" · ")
}

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;
