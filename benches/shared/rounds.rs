//! Rounds of ours and the peers, their medians, and the two forms of the result.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench reports to a terminal")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::Write as _;

use serde::Serialize;

use crate::Result;

/// One measurement: seconds by case, and the peak memory and the cost if they are known.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    pub(crate) cases: BTreeMap<String, f64>,
    pub(crate) rss_mib: Option<f64>,
    pub(crate) cost: Option<Cost>,
}

/// What a measurement cost, apart from time.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Cost {
    /// CPU of what was measured, with its children.
    pub(crate) client_cpu_s: f64,
    /// CPU of all processes of the server that it talked to.
    pub(crate) server_cpu_s: f64,
    /// What it read from files and pipes; the kernel counts no sockets here.
    pub(crate) client_read_mib: f64,
}

/// Something that can be measured again and again.
pub(crate) struct Contender<'a> {
    name: String,
    measure: Box<dyn FnMut() -> Result<Sample> + 'a>,
}

impl<'a> Contender<'a> {
    pub(crate) fn new(name: impl Into<String>, measure: impl FnMut() -> Result<Sample> + 'a) -> Self {
        Self { name: name.into(), measure: Box::new(measure) }
    }
}

/// How a bench is played.
#[derive(Debug)]
pub(crate) struct Rounds {
    pub(crate) bench: &'static str,
    pub(crate) runs: u32,
}

/// One line of the result.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    bench: &'static str,
    case: String,
    peer: String,
    runs: u32,
    ours_median_s: f64,
    peer_median_s: f64,
    /// Above 1 we are faster.
    ratio: f64,
    ours_rss_mib: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ours_cost: Option<Cost>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_cost: Option<Cost>,
}

impl Rounds {
    /// Plays the rounds. Each runs ours and every peer once, and each round starts with another one, so nobody always runs
    /// behind the same neighbour.
    ///
    /// # Errors
    /// The first error of a contender.
    pub(crate) fn play(&self, ours: Contender<'_>, peers: Vec<Contender<'_>>) -> Result<Vec<Row>> {
        let mut all: Vec<Contender<'_>> = std::iter::once(ours).chain(peers).collect();
        let mut samples: Vec<Vec<Sample>> = all.iter().map(|_| Vec::new()).collect();
        for round in 0..self.runs {
            for turn in 0..all.len() {
                let at = (turn + usize::try_from(round)?) % all.len();
                eprintln!("{} {}/{}: {}", self.bench, round + 1, self.runs, all[at].name);
                let sample = (all[at].measure)()?;
                samples[at].push(sample);
            }
        }
        let [ours, peers @ ..] = samples.as_slice() else { return Ok(Vec::new()) };
        let rss = median(ours.iter().filter_map(|sample| sample.rss_mib));
        let cases = ours.first().map(|sample| sample.cases.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
        let mut rows = Vec::new();
        for case in cases {
            for (peer, samples) in all.iter().skip(1).zip(peers) {
                rows.extend(self.row(&case, &peer.name, (ours, samples), rss));
            }
        }
        Ok(rows)
    }

    /// The row of `case` against one peer, if both have measured it.
    fn row(&self, case: &str, peer: &str, (ours, theirs): (&[Sample], &[Sample]), rss: Option<f64>) -> Option<Row> {
        let seconds = |samples: &[Sample]| median(samples.iter().filter_map(|sample| sample.cases.get(case).copied()));
        let (ours_cost, peer_cost) = (median_cost(ours), median_cost(theirs));
        let (ours, theirs) = (seconds(ours)?, seconds(theirs)?);
        Some(Row {
            bench: self.bench,
            case: case.to_owned(),
            peer: peer.to_owned(),
            runs: self.runs,
            ours_median_s: rounded(ours),
            peer_median_s: rounded(theirs),
            ratio: rounded(theirs / ours),
            ours_rss_mib: rss.map(rounded),
            ours_cost,
            peer_cost,
        })
    }
}

/// The middle one, or the mean of the two in the middle.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    let lower = if sorted.len().is_multiple_of(2) { sorted[middle - 1] } else { upper };
    Some(f64::midpoint(lower, upper))
}

/// Each part by itself.
fn median_cost(samples: &[Sample]) -> Option<Cost> {
    let of = |part: fn(&Cost) -> f64| median(samples.iter().filter_map(|it| it.cost.as_ref().map(part))).map(rounded);
    Some(Cost {
        client_cpu_s: of(|cost| cost.client_cpu_s)?,
        server_cpu_s: of(|cost| cost.server_cpu_s)?,
        client_read_mib: of(|cost| cost.client_read_mib)?,
    })
}

/// Four significant digits: no bench on a shared machine knows more.
fn rounded(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

/// Says what is being prepared.
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}

/// The last word of a run that failed.
pub(crate) fn say_error(error: &dyn Error) {
    eprint!("error: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        eprint!(": {cause}");
        source = cause.source();
    }
    eprintln!();
}

/// Prints the rows as a table. What they cost is there if it was measured: CPU of client and server, and what the client read.
pub(crate) fn print(rows: &[Row]) {
    let with_cost = rows.iter().any(|row| row.ours_cost.is_some());
    let heads = if with_cost { format!(" {:>20} {:>20}", "ours CPU, read", "peer CPU, read") } else { String::new() };
    println!(
        "{:<9} {:<16} {:<34} {:>4} {:>12} {:>12} {:>7} {:>9}{heads}",
        "bench", "case", "peer", "runs", "ours", "peer", "ratio", "ours RSS"
    );
    for row in rows {
        let rss = row.ours_rss_mib.map_or_else(|| "-".to_owned(), |mib| format!("{mib:.1} MiB"));
        let (ours, peer) = (cost(row.ours_cost), cost(row.peer_cost));
        let costs = if with_cost { format!(" {ours:>20} {peer:>20}") } else { String::new() };
        println!(
            "{:<9} {:<16} {:<34} {:>4} {:>12} {:>12} {:>7.2} {:>9}{costs}",
            row.bench,
            row.case,
            row.peer,
            row.runs,
            time(row.ours_median_s),
            time(row.peer_median_s),
            row.ratio,
            rss
        );
    }
}

fn cost(cost: Option<Cost>) -> String {
    let shown = |it: Cost| format!("{:.1}+{:.1} s, {:.0} MiB", it.client_cpu_s, it.server_cpu_s, it.client_read_mib);
    cost.map_or_else(|| "-".to_owned(), shown)
}

/// Seconds in a unit that a person reads.
fn time(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 1e-6 => format!("{:.1} ns", seconds * 1e9),
        seconds if seconds < 1e-3 => format!("{:.1} µs", seconds * 1e6),
        seconds if seconds < 1.0 => format!("{:.2} ms", seconds * 1e3),
        seconds => format!("{seconds:.2} s"),
    }
}

/// Appends the rows to `file`, one JSON object per line.
///
/// # Errors
/// If the file cannot be written.
pub(crate) fn write_json(rows: &[Row], file: &mut File) -> Result {
    for row in rows {
        writeln!(file, "{}", serde_json::to_string(row)?)?;
    }
    Ok(())
}
