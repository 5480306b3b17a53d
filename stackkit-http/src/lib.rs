//! HTTP views over the health engine of stackkit.
