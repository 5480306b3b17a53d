//! Families of samples, and how both of Prometheus' text formats write them.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

/// A text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextFormat {
    /// Prometheus' own, 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl TextFormat {
    /// All of them; the first is the one of a request that asks for none.
    pub(crate) const ALL: [Self; 2] = [Self::Prometheus, Self::OpenMetrics];
    /// What a request's `Accept` calls them.
    pub(crate) const ACCEPTED: [&str; 2] = ["text/plain", "application/openmetrics-text"];

    /// The format in a word, for tags.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Prometheus => "prometheus",
            Self::OpenMetrics => "openmetrics",
        }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The type of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Gauge,
    Counter,
    Histogram,
}

impl Type {
    fn as_str(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
        }
    }
}

/// The name, type, unit and help of a family.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// The name without the ending of its samples.
    pub(crate) name: String,
    pub(crate) kind: Type,
    pub(crate) unit: Option<&'static str>,
    pub(crate) help: String,
}

/// Samples of one name.
#[derive(Debug)]
struct Family {
    head: Head,
    /// Lines, each with its ending, labels and value.
    samples: String,
}

/// A text of families, each written once whatever order its samples come in.
#[derive(Debug, Default)]
pub(crate) struct Families(BTreeMap<String, Family>);

impl Families {
    /// The family of that head; `None` if another type has the name already.
    pub(crate) fn family(&mut self, head: &Head) -> Option<Samples<'_>> {
        let family =
            self.0.entry(head.name.clone()).or_insert_with(|| Family { head: head.clone(), samples: String::new() });
        (family.head.kind == head.kind).then_some(Samples { family })
    }

    /// The whole text.
    pub(crate) fn write(&self, format: TextFormat) -> String {
        let mut text = String::new();
        for family in self.0.values().filter(|family| !family.samples.is_empty()) {
            let Head { name, kind, unit, help } = &family.head;
            let open = format == TextFormat::OpenMetrics;
            // Prometheus' own format calls a counter as its samples are called, OpenMetrics as its family.
            let ending = if *kind == Type::Counter && !open { "_total" } else { "" };
            let help = Escaped { text: help, quotes: open };
            // Writing to a `String` can't fail, here and below.
            let _ = writeln!(text, "# TYPE {name}{ending} {}", kind.as_str());
            if let (Some(unit), true) = (unit, open) {
                let _ = writeln!(text, "# UNIT {name} {unit}");
            }
            let _ = writeln!(text, "# HELP {name}{ending} {help}");
            text.push_str(&family.samples);
        }
        if format == TextFormat::OpenMetrics {
            text.push_str("# EOF\n");
        }
        text
    }
}

/// Takes the samples of one family.
#[derive(Debug)]
pub(crate) struct Samples<'a> {
    family: &'a mut Family,
}

impl Samples<'_> {
    /// Adds a sample.
    pub(crate) fn add(&mut self, labels: &[(&str, &str)], value: impl fmt::Display) {
        let ending = if self.family.head.kind == Type::Counter { "_total" } else { "" };
        self.add_part(ending, labels, value);
    }

    /// Adds a sample whose name has that ending: a bucket, a sum.
    pub(crate) fn add_part(&mut self, ending: &str, labels: &[(&str, &str)], value: impl fmt::Display) {
        let Family { head, samples } = &mut *self.family;
        let _ = write!(samples, "{}{ending}", head.name);
        for (at, (name, value)) in labels.iter().enumerate() {
            let before = if at == 0 { '{' } else { ',' };
            let _ = write!(samples, "{before}{name}=\"{}\"", Escaped { text: value, quotes: true });
        }
        let _ = writeln!(samples, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

/// A text between quotes, or a help text.
struct Escaped<'a> {
    text: &'a str,
    quotes: bool,
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '\n' => f.write_str("\\n"),
            '"' if self.quotes => f.write_str("\\\""),
            _ => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(name: &str, kind: Type) -> Head {
        Head { name: name.to_owned(), kind, unit: None, help: "a \"word\"\nand \\".to_owned() }
    }

    #[test]
    fn each_format_has_its_own_words() {
        let mut families = Families::default();
        families.family(&head("b", Type::Counter)).unwrap().add(&[("service", "a\"b\\c\nd")], 1.5);
        families.family(&head("a", Type::Gauge)).unwrap().add(&[], 2);
        families.family(&head("b", Type::Counter)).unwrap().add(&[("service", "x"), ("db", "0")], 2_u64);
        assert!(families.family(&head("b", Type::Gauge)).is_none());
        let samples = "b_total{service=\"a\\\"b\\\\c\\nd\"} 1.5\nb_total{service=\"x\",db=\"0\"} 2\n";
        assert_eq!(
            families.write(TextFormat::OpenMetrics),
            format!(
                "# TYPE a gauge\n# HELP a a \\\"word\\\"\\nand \\\\\na 2\n# TYPE b counter\n# HELP b a \\\"word\\\"\\nand \\\\\n{samples}# EOF\n"
            )
        );
        assert_eq!(
            families.write(TextFormat::Prometheus),
            format!(
                "# TYPE a gauge\n# HELP a a \"word\"\\nand \\\\\na 2\n# TYPE b_total counter\n# HELP b_total a \"word\"\\nand \\\\\n{samples}"
            )
        );
    }
}
