//! The two drawings of a row: the latency of the last hour and the availability of the last day.

use std::fmt::Write as _;

use jiff::Timestamp;
use stackkit_core::health::{History, Minute, Status};

use super::html::{latency, percent, seconds_between};

/// How many minutes the drawing of latencies shows.
const SPARK_MINUTES: u64 = 60;
/// The height of the drawing of latencies, in its own units.
const SPARK_HEIGHT: f64 = 28.0;
/// What stays free above the highest value and below the lowest, so that no line is cut.
const SPARK_MARGIN: f64 = 2.0;
/// How many segments the bar has.
pub(super) const SEGMENTS: usize = 96;
/// How long a segment lasts: a day has [`SEGMENTS`] of them.
const SEGMENT_MINUTES: u64 = 15;
/// The height of the bar, in its own units.
const BAR_HEIGHT: u32 = 24;

/// How a quarter of an hour was; the drawing tells them apart by height as well as by colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Segment {
    /// Nothing is known.
    Nothing,
    /// It was healthy.
    Healthy,
    /// It served, and something was to be looked at.
    Degraded,
    /// It did not serve, for a part of it at least.
    Down,
}

impl Segment {
    const DRAWN: [(Self, &'static str, u32); 4] = [
        (Self::Nothing, "nothing", 3),
        (Self::Healthy, "healthy", 17),
        (Self::Degraded, "degraded", 20),
        (Self::Down, "unhealthy", BAR_HEIGHT),
    ];

    fn of(minute: &Minute) -> Self {
        match (minute.ready_ratio, minute.status) {
            (Some(ratio), _) if ratio < 1.0 => Self::Down,
            (_, Some(Status::Unhealthy)) => Self::Down,
            (Some(_), Some(Status::Degraded)) => Self::Degraded,
            (Some(_), Some(_)) => Self::Healthy,
            _ => Self::Nothing,
        }
    }
}

/// The day in quarters of an hour, the running one last.
pub(super) fn segments(history: &History, now: Timestamp) -> [Segment; SEGMENTS] {
    let mut segments = [Segment::Nothing; SEGMENTS];
    for minute in &history.minutes {
        let ago = seconds_between(minute.at, now) / 60 / SEGMENT_MINUTES;
        let position = usize::try_from(ago).ok().and_then(|ago| SEGMENTS.checked_sub(ago + 1));
        if let Some(slot) = position.and_then(|position| segments.get_mut(position)) {
            *slot = (*slot).max(Segment::of(minute));
        }
    }
    segments
}

/// The bar of the day with its text.
pub(super) fn availability(history: &History, now: Timestamp) -> String {
    let Some(ratio) = history.availability.day_ratio else {
        return r#"<p class="figure faint">no availability yet</p>"#.to_owned();
    };
    let segments = segments(history, now);
    let down = segments.iter().filter(|segment| **segment == Segment::Down).count();
    let mut paths = String::new();
    for (kind, class, height) in Segment::DRAWN {
        let places = (0..SEGMENTS).zip(&segments).filter(|(_, segment)| **segment == kind);
        let drawn = places.fold(String::new(), |mut drawn, (at, _)| {
            // Writing to a `String` can't fail.
            let _ = write!(drawn, "M{at} {}h.7v{height}h-.7z", BAR_HEIGHT - height);
            drawn
        });
        if !drawn.is_empty() {
            let _ = write!(paths, r#"<path class="{class}" d="{drawn}"/>"#);
        }
    }
    let ratio = percent(ratio);
    let unready = if down == 0 { String::new() } else { format!("; not ready in {down} of {SEGMENTS} quarter hours") };
    format!(
        r#"<p class="figure"><b>{ratio}</b> in 24 h</p><svg class="bar" role="img" aria-label="Ready {ratio} of the last 24 hours{unready}" viewBox="0 0 {SEGMENTS} {BAR_HEIGHT}" preserveAspectRatio="none">{paths}</svg>"#
    )
}

/// What the last probe came to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Probed {
    /// It observed, in so many milliseconds.
    In(f64),
    /// It could not observe.
    Failed,
}

/// The latencies of the last hour as a line of medians over a band up to the 95th percentiles, with the text of the last
/// latency.
pub(super) fn latencies(history: Option<&History>, last: Option<Probed>, now: Timestamp) -> String {
    let last = match last {
        Some(Probed::In(ms)) => format!(r#"<p class="figure"><b>{}</b> latency</p>"#, latency(ms)),
        Some(Probed::Failed) => r#"<p class="figure"><b>no answer</b></p>"#.to_owned(),
        None => r#"<p class="figure faint">no latency yet</p>"#.to_owned(),
    };
    let points: Vec<Point> =
        history.iter().flat_map(|history| &history.minutes).filter_map(|m| Point::of(m, now)).collect();
    if points.is_empty() {
        return last;
    }
    let top = points.iter().map(|point| point.p95).fold(f64::MIN_POSITIVE, f64::max);
    let medians = points.iter().map(|point| point.p50);
    let (least, most) = (medians.clone().fold(f64::INFINITY, f64::min), medians.fold(0.0, f64::max));
    let runs: Vec<&[Point]> = points.chunk_by(|a, b| b.at - a.at < 1.5).collect();
    let drawn: String = runs.iter().map(|run| draw(run, top)).collect();
    let failed = failed(history, now);
    format!(
        r#"{last}<svg class="spark" role="img" aria-label="Median latency in the last hour from {} to {}, 95th percentile up to {}" viewBox="0 0 {} {SPARK_HEIGHT}" preserveAspectRatio="none">{drawn}{failed}</svg>"#,
        latency(least),
        latency(most),
        latency(top),
        SPARK_MINUTES,
    )
}

/// A mark at the ground for each minute in which the service failed.
fn failed(history: Option<&History>, now: Timestamp) -> String {
    let failing = history.iter().flat_map(|history| &history.minutes).filter(|m| m.status == Some(Status::Unhealthy));
    let places = failing.filter_map(|minute| place(minute.at, now));
    let marks: String = places.map(|at| format!("M{at} {}h1v5h-1z", SPARK_HEIGHT - 5.0)).collect();
    if marks.is_empty() { marks } else { format!(r#"<path class="unhealthy" d="{marks}"/>"#) }
}

/// Where a moment of the last hour is in the drawing, in minutes from its left edge.
fn place(at: Timestamp, now: Timestamp) -> Option<f64> {
    let place = (SPARK_MINUTES - 1).checked_sub(seconds_between(at, now) / 60)?;
    u32::try_from(place).ok().map(f64::from)
}

/// One minute of the drawing of latencies.
#[derive(Debug, Clone, Copy)]
struct Point {
    /// Minutes since an hour ago.
    at: f64,
    p50: f64,
    p95: f64,
}

impl Point {
    fn of(minute: &Minute, now: Timestamp) -> Option<Self> {
        let at = place(minute.at, now)?;
        let p50 = minute.latency_p50_ms?;
        Some(Self { at, p50, p95: minute.latency_p95_ms.unwrap_or(p50) })
    }
}

/// One run of minutes without a gap.
fn draw(run: &[Point], top: f64) -> String {
    let y = |value: f64| SPARK_HEIGHT - SPARK_MARGIN - value / top * (SPARK_HEIGHT - 2.0 * SPARK_MARGIN);
    let line = |points: &mut dyn Iterator<Item = (f64, f64)>| {
        points.map(|(x, value)| format!("{x},{:.1}", y(value))).collect::<Vec<_>>().join(" ")
    };
    let median = line(&mut run.iter().map(|point| (point.at, point.p50)));
    let upper = run.iter().map(|point| (point.at, point.p95));
    let lower = run.iter().rev().map(|point| (point.at, 0.0));
    let band = line(&mut upper.chain(lower));
    // A line needs two points: a lone minute is drawn as a short one.
    let median = match run {
        [only] => line(&mut [(only.at - 0.5, only.p50), (only.at + 0.5, only.p50)].into_iter()),
        _ => median,
    };
    format!(r#"<polygon class="band" points="{band}"/><polyline class="median" points="{median}"/>"#)
}
