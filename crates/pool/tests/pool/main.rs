//! Tests of the pool against a model of the world around it.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod cases;
mod properties;
mod world;
