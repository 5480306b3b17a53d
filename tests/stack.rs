//! The whole-stack tests, with every feature on.

mod tls;
