//! HTTP: the check of a web service, and the webhook for transitions.

mod certificate;
mod check;
mod client;
mod der;
mod headers;
mod judge;
mod target;
mod template;
mod webhook;

pub(crate) use certificate::{certificate_code, certificate_words};
pub use check::HttpCheck;
pub use template::EVENT_SCHEMA;
pub use webhook::WebhookSink;
