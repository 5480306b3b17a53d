//! `health --watch`: the live table on a terminal, a line for each change elsewhere.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use serde::Serialize;
use stackkit::health::{Changes, Event, ProbeFailure};
use stackkit::{Error, Monitor, Result, Stack};
use tokio::time::{sleep, timeout};

use crate::exit::{Exit, Failure, Outcome};
use crate::output::Output;
use crate::table::{Paper, View, render};

/// The table is drawn at least so often: ages count on.
const DRAW_EVERY: Duration = Duration::from_secs(1);
/// The least time between two drawings: people read no faster, and some terminals are slow.
const DRAW_PAUSE: Duration = Duration::from_millis(100);
/// What is taken where the terminal does not say its size: that of the VT100.
const SIZE_DEFAULT: (usize, usize) = (80, 24);
/// Another screen than the one with the user's commands, without a cursor (xterm: DECSET 1049, DECTCEM).
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
/// The user's screen as it was.
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// To the upper left corner (ECMA-48: CUP).
const HOME: &str = "\x1b[H";
/// Clears what is right of the cursor (EL), so that nothing flickers.
const CLEAR_RIGHT: &str = "\x1b[K";
/// Clears what is below the cursor (ED).
const CLEAR_BELOW: &str = "\x1b[J";

/// Probes until a signal comes or the reader leaves.
pub(crate) async fn watch(stack: &Stack, out: &Output) -> Outcome {
    let monitor = Monitor::start(stack);
    let is_terminal = io::stdout().is_terminal() && !out.is_json();
    let watched = if is_terminal { draw(&monitor).await } else { tell(monitor.changes(), out).await };
    watched.map(|()| Exit::Done).map_err(Failure::usage)
}

/// A change as one object.
#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    #[serde(flatten)]
    change: &'a Event,
    failure: Option<&'a ProbeFailure>,
}

async fn tell(mut changes: Changes, out: &Output) -> Result<()> {
    while let Some(change) = changes.next_event().await {
        let line = Line { event: "transition", change: &change, failure: change.service.failure.as_ref() };
        let text = format_args!("{} {change}", change.transition.at.strftime("%Y-%m-%dT%H:%M:%SZ"));
        if !out.result_to_reader(text, &line)? {
            break;
        }
    }
    Ok(())
}

async fn draw(monitor: &Monitor) -> Result<()> {
    let failed = |error| Error::io("draw the table", error);
    let mut snapshot = monitor.snapshot();
    let screen = Screen::enter().map_err(failed)?;
    loop {
        let report = snapshot.report();
        let view = View { report: &report, now: snapshot.clock().now(), history: &|id| snapshot.history(id) };
        screen.show(&render(&view, Paper::of_terminal(terminal_size()))).map_err(failed)?;
        sleep(DRAW_PAUSE).await;
        // A report or the time, whichever comes first: the table is drawn after both.
        let _ = timeout(DRAW_EVERY - DRAW_PAUSE, snapshot.changed()).await;
    }
}

/// The terminal while the table is on it; dropping it gives the user's screen back, however the command ends.
struct Screen;

impl Screen {
    fn enter() -> io::Result<Self> {
        write!(io::stdout(), "{ENTER}")?;
        Ok(Self)
    }

    fn show(&self, lines: &[String]) -> io::Result<()> {
        let text = lines.iter().map(|line| format!("{line}{CLEAR_RIGHT}")).collect::<Vec<_>>().join("\r\n");
        let mut stdout = io::stdout().lock();
        write!(stdout, "{HOME}{text}{CLEAR_BELOW}")?;
        stdout.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nobody can be told if the terminal is gone.
        let _ = write!(io::stdout(), "{LEAVE}").and_then(|()| io::stdout().flush());
    }
}

/// Columns and rows; asked for each drawing, so that a change of the window needs no signal.
fn terminal_size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => SIZE_DEFAULT,
    }
}
