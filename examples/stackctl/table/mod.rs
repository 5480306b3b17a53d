//! A report as a table of text. Pure: no clock, no terminal.

use jiff::Timestamp;
use stackkit::health::{Finding, History, ServiceReport, Severity, Status};
use stackkit::{Report, ServiceId};

/// The blocks that a latency is drawn with, the lowest first.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// How many minutes the drawing of latencies shows at most.
const SPARK_MINUTES: usize = 60;
/// A drawing that is narrower says nothing.
const SPARK_MIN: usize = 8;
/// How wide the columns are, but for the name's and the drawing's: state, since, latency, availability.
const COLUMNS: [usize; 4] = [11, 11, 9, 7];
/// The widest column of names; longer names are cut.
const NAME_MAX: usize = 24;
/// What stands before the names: the sign of the state.
const MARGIN: usize = 2;
/// How far the lines below a row are indented.
const INDENT: usize = 4;
/// Narrower terminals are written as if they were so wide.
const WIDTH_MIN: usize = 30;

/// What is shown.
pub(crate) struct View<'a> {
    pub(crate) report: &'a Report,
    pub(crate) now: Timestamp,
    pub(crate) history: &'a dyn Fn(&str) -> Option<History>,
}

/// What it is written on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paper {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) is_coloured: bool,
}

impl Paper {
    /// A terminal of so many columns and rows; coloured unless `NO_COLOR` is set (<https://no-color.org>).
    pub(crate) fn of_terminal((width, height): (usize, usize)) -> Self {
        let is_coloured = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { width, height, is_coloured }
    }
}

/// How a piece of text looks (ECMA-48: SGR).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Plain,
    Bold,
    Faint,
    Good,
    Warning,
    Bad,
    Work,
}

impl Look {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "1",
            Self::Faint => "2",
            Self::Good => "32",
            Self::Warning => "33",
            Self::Bad => "1;31",
            Self::Work => "36",
        }
    }
}

/// One line in pieces.
#[derive(Debug, Default)]
struct Line(Vec<(Look, String)>);

impl Line {
    fn add(&mut self, look: Look, text: impl Into<String>) -> &mut Self {
        self.0.push((look, text.into()));
        self
    }

    /// Cut to the width and coloured.
    fn written(&self, paper: Paper) -> String {
        let mut left = paper.width.max(WIDTH_MIN);
        let mut written = String::new();
        for (look, text) in &self.0 {
            let text: String = text.chars().take(left).collect();
            left -= text.chars().count();
            match look.code() {
                "" => written.push_str(&text),
                _ if !paper.is_coloured || text.is_empty() => written.push_str(&text),
                code => written.push_str(&format!("\x1b[{code}m{text}\x1b[0m")),
            }
        }
        written.trim_end().to_owned()
    }
}

/// The table in lines, none wider and not more than the paper holds.
pub(crate) fn render(view: &View<'_>, paper: Paper) -> Vec<String> {
    let services = view.report.dependencies_first();
    let longest = services.iter().map(|service| service.id.as_str().len()).max().unwrap_or(0);
    let name_width = longest.clamp(7, NAME_MAX);
    let fixed = MARGIN + name_width + 1 + COLUMNS.iter().map(|width| width + 1).sum::<usize>();
    let spark_width = Some(paper.width.saturating_sub(fixed + 1).min(SPARK_MINUTES)).filter(|left| *left >= SPARK_MIN);
    let columns = Columns { name_width, spark_width };
    let entry = |service: &ServiceReport| {
        let history = (view.history)(service.id.as_str());
        let row = columns.row(service, history.as_ref(), view.now);
        std::iter::once(row).chain(notes(service, paper.width.max(WIDTH_MIN))).collect::<Vec<Line>>()
    };
    let mut entries: Vec<_> = services.iter().map(|service| (service.status, entry(service))).collect();
    let mut lines = vec![head(view), Line::default(), columns.titles()];
    if lines.len() + entries.iter().map(|(_, entry)| entry.len()).sum::<usize>() > paper.height {
        // What does not fit must not be what is wrong.
        entries.sort_by_key(|(status, _)| std::cmp::Reverse(*status));
    }
    lines.extend(entries.into_iter().flat_map(|(_, entry)| entry));
    if lines.len() > paper.height {
        let hidden = lines.len() - paper.height.saturating_sub(1);
        lines.truncate(paper.height.saturating_sub(1));
        let mut more = Line::default();
        more.add(Look::Faint, format!("and {hidden} more lines"));
        lines.push(more);
    }
    lines.iter().map(|line| line.written(paper)).collect()
}

fn head(view: &View<'_>) -> Line {
    let report = view.report;
    let (sign, look) = state(report.status);
    let ready = match (report.draining, report.ready) {
        (true, _) => "draining",
        (false, true) => "ready",
        (false, false) => "not ready",
    };
    let mut line = Line::default();
    line.add(look, format!("{sign} {}", report.status.as_str().to_uppercase()))
        .add(Look::Bold, format!("  {}", report.stack))
        .add(Look::Plain, format!("  {ready}"))
        .add(Look::Faint, format!("  {}", view.now.strftime("%Y-%m-%d %H:%M:%S UTC")));
    line
}

/// The sign of a status, which tells it apart without a colour, and its look.
fn state(status: Status) -> (char, Look) {
    match status {
        Status::Healthy => ('✔', Look::Good),
        Status::Degraded => ('▲', Look::Warning),
        Status::Unknown => ('?', Look::Bold),
        Status::Unhealthy => ('✖', Look::Bad),
    }
}

struct Columns {
    name_width: usize,
    spark_width: Option<usize>,
}

impl Columns {
    fn titles(&self) -> Line {
        let [state, since, latency, day] = COLUMNS;
        let spark = self.spark_width.map_or_else(String::new, |width| format!("{:<width$} ", "last hour"));
        let mut line = Line::default();
        line.add(
            Look::Faint,
            format!(
                "{:MARGIN$}{:<name$} {:<state$} {:<since$} {:>latency$} {spark}{:>day$}",
                "",
                "service",
                "state",
                "for",
                "latency",
                "24 h",
                name = self.name_width,
            ),
        );
        line
    }

    fn row(&self, service: &ServiceReport, history: Option<&History>, now: Timestamp) -> Line {
        let [state_width, since, latency, day] = COLUMNS;
        let (sign, look, word) = match (service.maintenance_until, state(service.status)) {
            (Some(_), _) => ('■', Look::Work, "maintenance"),
            (None, (sign, look)) => (sign, look, service.status.as_str()),
        };
        let took = match (&service.failure, service.latency_ms) {
            (Some(_), _) => "no answer".to_owned(),
            (None, Some(ms)) => milliseconds(ms),
            (None, None) => "-".to_owned(),
        };
        let for_how_long = service.checked_at.map_or_else(|| "-".to_owned(), |_| age(service.since, now));
        let ready = history.and_then(|history| history.availability.day_ratio).map_or("-".to_owned(), percent);
        let name: String = service.id.as_str().chars().take(self.name_width).collect();
        let mut line = Line::default();
        line.add(look, format!("{sign} "))
            .add(Look::Bold, format!("{name:<width$} ", width = self.name_width))
            .add(look, format!("{word:<state_width$} "))
            .add(Look::Plain, format!("{for_how_long:<since$} {took:>latency$} "));
        if let Some(width) = self.spark_width {
            line.add(Look::Faint, format!("{:>width$} ", history.map_or_else(String::new, |h| spark(h, width))));
        }
        line.add(Look::Plain, format!("{ready:>day$}"));
        line
    }
}

/// The medians of the last minutes as blocks, a failing one as a cross.
fn spark(history: &History, width: usize) -> String {
    let minutes = history.minutes.iter().rev().take(width.min(SPARK_MINUTES)).rev();
    let top = minutes.clone().filter_map(|minute| minute.latency_p50_ms).fold(f64::MIN_POSITIVE, f64::max);
    let block = |ms: f64| {
        let reached = (1..BLOCKS.len()).filter(|step| ms / top * 8.0 > f64::from(u8::try_from(*step).unwrap_or(8)));
        BLOCKS[reached.count()]
    };
    let drawn = minutes.map(|minute| match (minute.status, minute.latency_p50_ms) {
        (Some(Status::Unhealthy), _) => '×',
        (_, Some(ms)) => block(ms),
        (_, None) => ' ',
    });
    drawn.collect()
}

/// Why it is as it is, and what to do, below its row.
fn notes(service: &ServiceReport, width: usize) -> Vec<Line> {
    let mut notes = Vec::new();
    if !service.caused_by.is_empty() {
        let causes: Vec<&str> = service.caused_by.iter().map(ServiceId::as_str).collect();
        notes.extend(wrapped(Look::Faint, &format!("because of {}", causes.join(", ")), width));
    } else if let Some(failure) = &service.failure {
        let phase = failure.phase.map_or_else(String::new, |phase| format!(" in phase {}", phase.as_str()));
        let own = failure.message.strip_prefix(service.id.as_str()).and_then(|rest| rest.strip_prefix(": "));
        let text = format!("{}{phase}: {}", failure.kind.as_str(), own.unwrap_or(&failure.message));
        notes.extend(wrapped(Look::Bad, &text, width));
    }
    if service.flapping {
        notes.extend(wrapped(Look::Warning, "it flaps: it turns too often for each turn to be told", width));
    }
    service.findings().for_each(|finding| notes.extend(told(finding, width)));
    notes
}

fn told(finding: &Finding, width: usize) -> Vec<Line> {
    let (word, look) = match finding.severity {
        Severity::Info => ("info", Look::Faint),
        Severity::Warning => ("warning", Look::Warning),
        Severity::Critical => ("critical", Look::Bad),
    };
    let mut lines = wrapped(look, &format!("{word}: {}", finding.message), width);
    if let Some(hint) = &finding.hint {
        lines.extend(wrapped(Look::Faint, &format!("  {hint}"), width));
    }
    lines
}

/// A text in lines of whole words, indented; a word that is too long is cut by the line.
fn wrapped(look: Look, text: &str, width: usize) -> Vec<Line> {
    let indent = " ".repeat(INDENT + text.chars().take_while(|letter| *letter == ' ').count());
    let mut lines = vec![indent.clone()];
    for word in text.split_whitespace() {
        let Some(last) = lines.last_mut() else { break };
        let is_first = last.len() == indent.len();
        if !is_first && last.chars().count() + 1 + word.chars().count() > width {
            lines.push(format!("{indent}{word}"));
        } else {
            last.push_str(if is_first { "" } else { " " });
            last.push_str(word);
        }
    }
    lines.into_iter().map(|text| Line(vec![(look, text)])).collect()
}

/// `12 s`, `3 min`, `2 h 5 min`, `4 d 3 h`.
fn age(from: Timestamp, to: Timestamp) -> String {
    match to.as_second().saturating_sub(from.as_second()).max(0) {
        seconds if seconds < 60 => format!("{seconds} s"),
        seconds if seconds < 3600 => format!("{} min", seconds / 60),
        seconds if seconds < 86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        seconds => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

fn milliseconds(ms: f64) -> String {
    if ms < 10.0 { format!("{ms:.2} ms") } else { format!("{ms:.0} ms") }
}

/// Never rounded up to a round hundred.
fn percent(ratio: f64) -> String {
    let hundredths = (ratio.clamp(0.0, 1.0) * 1e4).floor() / 100.0;
    if hundredths >= 100.0 { "100 %".to_owned() } else { format!("{hundredths:.2} %") }
}

#[cfg(test)]
mod tests;
