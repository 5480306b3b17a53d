//! What every part of the page is written with: escaped text, times for people, icons.

use std::fmt::{self, Write as _};

use jiff::Timestamp;
use stackkit_core::health::Status;

/// A text as HTML shows it, in an element and in a quoted attribute.
pub(super) struct Text<'a>(pub(super) &'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|letter| match letter {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            _ => f.write_char(letter),
        })
    }
}

/// A span of time for people, of two units at most: `12 s`, `3 min`, `2 h 5 min`, `4 d 3 h`. The page's script counts on in the
/// same words.
pub(super) struct Span(pub(super) u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        const DAY: u64 = 24 * HOUR;
        let pair = |whole: u64, unit: &str, rest: u64, lesser: &str| match rest {
            0 => format!("{whole} {unit}"),
            rest => format!("{whole} {unit} {rest} {lesser}"),
        };
        let text = match self.0 {
            seconds if seconds < MINUTE => format!("{seconds} s"),
            seconds if seconds < HOUR => format!("{} min", seconds / MINUTE),
            seconds if seconds < DAY => pair(seconds / HOUR, "h", seconds % HOUR / MINUTE, "min"),
            seconds => pair(seconds / DAY, "d", seconds % DAY / HOUR, "h"),
        };
        f.write_str(&text)
    }
}

/// The whole seconds from one moment to a later one.
pub(super) fn seconds_between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.as_second().saturating_sub(from.as_second())).unwrap_or(0)
}

/// A moment as people read it: `2026-11-21 06:15:30 UTC`.
pub(super) fn absolute(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// A `time` element that says how long ago a moment is; the page's script counts it on.
pub(super) fn ago(at: Timestamp, now: Timestamp) -> String {
    let absolute = absolute(at);
    let span = Span(seconds_between(at, now));
    format!(r#"<time data-age datetime="{at}" title="{absolute}">{span}</time>"#)
}

/// A `time` element with the hour of a moment on the same day, or with the date.
pub(super) fn moment(at: Timestamp, now: Timestamp) -> String {
    let day = |at: Timestamp| at.strftime("%Y-%m-%d").to_string();
    let form = if day(at) == day(now) { "%H:%M UTC" } else { "%Y-%m-%d %H:%M UTC" };
    format!(r#"<time datetime="{at}" title="{}">{}</time>"#, absolute(at), at.strftime(form))
}

/// A latency with three digits that count: `0.42 ms`, `13.1 ms`, `1.25 s`.
pub(super) fn latency(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 100.0 => format!("{ms:.1} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.2} s", ms / 1000.0),
    }
}

/// A ratio in percent, never rounded up to a round hundred: `100 %`, `99.98 %`, `99.9 %`.
pub(super) fn percent(ratio: f64) -> String {
    let hundredths = (ratio.clamp(0.0, 1.0) * 1e4).floor() / 100.0;
    let digits = format!("{hundredths:.2}");
    format!("{} %", digits.trim_end_matches('0').trim_end_matches('.'))
}

/// What tells a state apart without its colour: the name of its icon and its style.
pub(super) fn class(status: Status) -> &'static str {
    status.as_str()
}

/// The status as a word that begins a line.
pub(super) fn word(status: Status) -> &'static str {
    match status {
        Status::Healthy => "Healthy",
        Status::Degraded => "Degraded",
        Status::Unknown => "Unknown",
        Status::Unhealthy => "Unhealthy",
    }
}

/// An icon of the page; the word beside it says the same, so readers of the screen skip it.
pub(super) fn icon(name: &str) -> String {
    format!(r##"<svg class="icon" aria-hidden="true" focusable="false"><use href="#i-{name}"/></svg>"##)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_text_is_markup() {
        let text = Text(r#"<b a="x" b='y'>&amp;"#).to_string();
        assert_eq!(text, "&lt;b a=&quot;x&quot; b=&#39;y&#39;&gt;&amp;amp;");
    }

    #[test]
    fn spans_have_two_units_at_most() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3599, "59 min"),
            (3600, "1 h"),
            (7500, "2 h 5 min"),
            (86_400, "1 d"),
            (90_000 + 86_400, "2 d 1 h"),
        ] {
            assert_eq!(Span(seconds).to_string(), text);
        }
    }

    #[test]
    fn a_ratio_is_never_rounded_up() {
        for (ratio, text) in [(1.0, "100 %"), (0.99999, "99.99 %"), (0.999, "99.9 %"), (0.5, "50 %"), (0.0, "0 %")] {
            assert_eq!(percent(ratio), text);
        }
    }

    #[test]
    fn latencies_keep_three_digits() {
        let texts = [0.4213, 13.14, 250.0, 1250.0].map(latency);
        assert_eq!(texts, ["0.42 ms", "13.1 ms", "250 ms", "1.25 s"]);
    }
}
