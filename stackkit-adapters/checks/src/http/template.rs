//! From an event to the JSON that a receiver understands.

use std::fmt;

use serde_json::{Value, json};
use stackkit_core::health::Event;
use stackkit_core::{Error, Result};

/// The name and version of the document that is posted unless a template says otherwise.
pub const EVENT_SCHEMA: &str = "stackkit.event/1";

/// What a placeholder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Stack,
    Service,
    From,
    To,
    At,
    Message,
}

impl Field {
    const ALL: [(&'static str, Self); 6] = [
        ("stack", Self::Stack),
        ("service", Self::Service),
        ("from", Self::From),
        ("to", Self::To),
        ("at", Self::At),
        ("message", Self::Message),
    ];

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, field)| field)
    }

    fn of(self, event: &Event) -> String {
        let change = &event.transition;
        match self {
            Self::Stack => event.stack.to_string(),
            Self::Service => change.service.to_string(),
            Self::From => change.from.to_string(),
            Self::To => change.to.to_string(),
            Self::At => change.at.to_string(),
            Self::Message => event.to_string(),
        }
    }
}

/// How an event becomes JSON.
pub(crate) enum Template {
    /// The document `stackkit.event/1`.
    Event,
    /// `{"text": …}`, escaped as Slack wants it.
    Slack,
    /// JSON whose texts hold placeholders.
    Json(Value),
    /// A function of the user's.
    Function(Box<dyn Fn(&Event) -> Value + Send + Sync>),
}

impl Template {
    /// JSON with placeholders such as `{{service}}` in its texts.
    ///
    /// # Errors
    /// `Config` if it is not JSON, or names a placeholder that does not exist.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let not_json = |error| Error::config("the template is not JSON").with_source(error);
        let template: Value = serde_json::from_str(text).map_err(not_json)?;
        // Filled with nothing, it must have nothing that is unknown.
        fill(&template, &|_field| String::new()).map(|_filled| Self::Json(template))
    }

    pub(crate) fn render(&self, event: &Event) -> Result<Value> {
        match self {
            Self::Event => Ok(document(event)),
            Self::Slack => Ok(json!({"text": slack_text(&event.to_string())})),
            Self::Json(template) => fill(template, &|field| field.of(event)),
            Self::Function(function) => Ok(function(event)),
        }
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Event => "Event",
            Self::Slack => "Slack",
            Self::Json(_) => "Json",
            Self::Function(_) => "Function",
        })
    }
}

/// The document of an event. Fields may be added to it; none changes its meaning under the same schema.
fn document(event: &Event) -> Value {
    let (change, service) = (&event.transition, &event.service);
    let mut document = json!({
        "schema": EVENT_SCHEMA,
        "stack": event.stack.as_ref(),
        "service": change.service,
        "kind": service.kind,
        "from": change.from,
        "to": change.to,
        "at": change.at,
        "flapping": change.flapping,
        "message": event.to_string(),
        "ready": event.report.ready,
    });
    if let (Some(failure), Some(document)) = (&service.failure, document.as_object_mut()) {
        document.insert("failure".to_owned(), json!(failure));
    }
    document
}

/// The three characters that Slack's format gives a meaning: api.slack.com, "Formatting text", "Escaping text".
fn slack_text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The template with its placeholders replaced. The values are texts of JSON then, whatever they hold.
fn fill(template: &Value, value: &dyn Fn(Field) -> String) -> Result<Value> {
    Ok(match template {
        Value::String(text) => Value::String(fill_text(text, value)?),
        Value::Array(items) => Value::Array(items.iter().map(|item| fill(item, value)).collect::<Result<_>>()?),
        Value::Object(fields) => {
            let filled = fields.iter().map(|(name, field)| Ok((name.clone(), fill(field, value)?)));
            Value::Object(filled.collect::<Result<_>>()?)
        }
        other => other.clone(),
    })
}

/// Replaces from left to right, once: a value that looks like a placeholder stays as it is.
fn fill_text(text: &str, value: &dyn Fn(Field) -> String) -> Result<String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let named = after.split_once("}}").and_then(|(name, after)| Some((Field::parse(name.trim())?, after)));
        let Some((field, after)) = named else {
            let known: Vec<&str> = Field::ALL.into_iter().map(|(name, _)| name).collect();
            let message = format!("the template has an unknown placeholder; there are: {}", known.join(", "));
            return Err(Error::config(message));
        };
        filled.push_str(before);
        filled.push_str(&value(field));
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stackkit_core::ErrorKind;

    use super::*;

    fn filled(template: &str, with: &str) -> Value {
        let Template::Json(template) = Template::parse(template).unwrap() else { panic!("another template") };
        fill(&template, &|field| format!("{field:?}={with}")).unwrap()
    }

    #[test]
    fn placeholders_are_filled_once_and_only_in_texts() {
        let template = r#"{"a {{to}}": ["{{service}} is {{ to }}!", 1, null], "b": {"c": "{{message}}"}}"#;
        let wanted = json!({"a {{to}}": ["Service={{at}} is To={{at}}!", 1, null], "b": {"c": "Message={{at}}"}});
        assert_eq!(filled(template, "{{at}}"), wanted);
        for bad in ["{{stack}}", "\"{{nothing}}\"", "\"{{to\"", "{"] {
            assert_eq!(Template::parse(bad).unwrap_err().kind(), ErrorKind::Config, "{bad}");
        }
    }

    #[test]
    fn slack_takes_no_markup_from_an_event() {
        assert_eq!(slack_text("<!channel> & co"), "&lt;!channel&gt; &amp; co");
    }

    proptest! {
        #[test]
        fn whatever_a_value_holds_the_result_is_json(with in any::<String>()) {
            let text = filled(r#"{"text": "{{message}}"}"#, &with).to_string();
            let read: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&read["text"], &Value::String(format!("Message={with}")));
        }

        #[test]
        fn any_template_is_taken_or_refused_without_a_panic(text in any::<String>()) {
            let _ = Template::parse(&text);
            let _ = Template::parse(&Value::String(text).to_string());
        }
    }
}
