//! HTTP: the check of a web service, and the webhook for transitions.

mod certificate;

pub(crate) use certificate::{certificate_code, certificate_words};
