//! The invoker against fake schedulers: real gRPC on loopback, simulated containers.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod failures;
mod fake;
mod serving;
mod session;
mod stops;
