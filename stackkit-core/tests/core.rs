//! The health engine and the process runner, run for real.

#[cfg(test)]
mod health;
#[cfg(test)]
mod process;
