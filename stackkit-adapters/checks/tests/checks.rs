//! The checks, run against real listeners, processes and directories.
