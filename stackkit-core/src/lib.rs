//! Contracts, health engine, errors, secrets and the child-process runner of stackkit.
