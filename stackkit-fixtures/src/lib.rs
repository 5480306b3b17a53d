//! Real stores for tests, and the conformance suite of stackkit.
