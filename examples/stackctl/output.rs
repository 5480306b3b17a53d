//! The only place that prints: results on standard output, all else on standard error.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use serde_json::{Value, json};
use stackkit::{Error, Result, Secret};

/// Goes to the start of the line and clears it (ECMA-48: CR, EL 2).
const CLEAR_LINE: &str = "\r\x1b[2K";

/// Where and in which form results go; clones share the terminal's moving line.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    json: bool,
    is_terminal: bool,
    /// Whether the terminal's last line is a moving one.
    moving: Arc<AtomicBool>,
    /// Passwords that a driver might put into its error text.
    hidden: Vec<Secret>,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, is_terminal: io::stderr().is_terminal(), moving: Arc::default(), hidden: Vec::new() }
    }

    /// Whether results and steps are JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether somebody looks at standard error.
    pub(crate) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Replaces these texts in all that drivers say.
    pub(crate) fn hide(&mut self, secrets: Vec<Secret>) {
        self.hidden.extend(secrets);
    }

    /// Prints a result: `text`, or with `--json` one line with `value`.
    ///
    /// # Errors
    /// `Io` if standard output can't be written. A reader that has left is none: it has what it wanted.
    pub(crate) fn result(&self, text: impl fmt::Display, value: &impl Serialize) -> Result<()> {
        self.result_to_reader(text, value).map(drop)
    }

    /// As [`Output::result`]; false once the reader has left.
    ///
    /// # Errors
    /// As [`Output::result`].
    pub(crate) fn result_to_reader(&self, text: impl fmt::Display, value: &impl Serialize) -> Result<bool> {
        let text = match self.json {
            true => serde_json::to_string(value)
                .map_err(|error| Error::unexpected("a result has no JSON form").with_source(error))?,
            false => text.to_string(),
        };
        self.clear();
        let mut stdout = io::stdout().lock();
        match writeln!(stdout, "{}", text.trim_end()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Error::io("print the result", error)),
            Ok(()) => Ok(true),
        }
    }

    /// Tells something that a person needs in order to answer; never in JSON.
    pub(crate) fn note(&self, text: impl fmt::Display) {
        self.line(&text.to_string());
    }

    /// Tells something that does not stop the command.
    pub(crate) fn warning(&self, message: &str) {
        self.tell("warning", message, &json!({ "event": "warning", "message": message }));
    }

    /// Tells why the command failed, with all causes.
    pub(crate) fn error(&self, error: &Error) {
        let own = error.to_string();
        let chain = error.chain().to_string();
        // The own facts hold no secret by construction; a driver's text might.
        let causes = Secret::redact_all(&self.hidden, chain.strip_prefix(&own).unwrap_or_default());
        let message = format!("{own}{causes}");
        self.tell("error", &message, &json!({ "event": "error", "kind": error.kind(), "message": message }));
    }

    /// Tells one step of a long command: a line, or with `--json` an object with `event`.
    pub(crate) fn step(&self, text: impl fmt::Display, mut value: Value) {
        value["event"] = "progress".into();
        self.line(&match self.json {
            true => value.to_string(),
            false => text.to_string(),
        });
    }

    /// Tells a transition of a service: a line, or with `--json` an object with `event`.
    pub(crate) fn transition(&self, text: impl fmt::Display, mut value: Value) {
        value["event"] = "transition".into();
        self.line(&match self.json {
            true => value.to_string(),
            false => text.to_string(),
        });
    }

    /// Shows how far a step is, where somebody looks: one line on a terminal that each call overwrites.
    pub(crate) fn moving(&self, text: &str) {
        if !self.json && self.is_terminal {
            self.moving.store(true, Ordering::Relaxed);
            // Nobody can be told if standard error is closed.
            let _ = write!(io::stderr(), "{CLEAR_LINE}{text}");
        }
    }

    fn tell(&self, word: &str, message: &str, value: &Value) {
        self.line(&match self.json {
            true => value.to_string(),
            false => format!("stackctl: {word}: {message}"),
        });
    }

    fn line(&self, text: &str) {
        self.clear();
        // Nobody can be told if standard error is closed.
        let _ = writeln!(io::stderr(), "{text}");
    }

    fn clear(&self) {
        if self.moving.swap(false, Ordering::Relaxed) {
            let _ = write!(io::stderr(), "{CLEAR_LINE}");
        }
    }
}

/// A size for people: `512 B`, `1.5 KiB`, `2.0 GiB`.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let mut tenths = u128::from(self.0) * 10;
        let mut unit = None;
        for larger in UNITS {
            if tenths < 10_240 {
                break;
            }
            tenths /= 1024;
            unit = Some(larger);
        }
        match unit {
            Some(unit) => write!(f, "{}.{} {unit}", tenths / 10, tenths % 10),
            None => write!(f, "{} B", self.0),
        }
    }
}
