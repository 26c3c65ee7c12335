//! The load of `whiskraft bench` and what it measures.
//!
//! A [`Plan`] says what is asked; [`prepare()`] stores what it needs; [`measure`] carries it out once and gives
//! a [`report::RunReport`]. Arrivals are due at fixed times ([`schedule`]) and sent by a thread of their own ([`open`]), or by callers
//! that wait for their answers ([`closed`]); every answer ends in a [`tally`]. What processes use is read from `/proc`
//! ([`usage`]). [`echo`] measures the wire alone. Several runs make a [`Report`], shown as text ([`table`]) and as a page ([`html`]).
//!
//! - **Invariant:** a latency counts from when the activation was due, so one that a stall held back shows that stall.
//! - **Invariant:** in the open loop no arrival waits for the answer to an earlier one, up to a bound; what the bound holds
//!   back is sent late, counted, and reported.

mod arguments;
mod call;
mod closed;
mod cluster;
pub(crate) mod echo;
mod html;
mod member;
mod mix;
mod notes;
mod open;
mod plan;
mod plot;
mod ports;
mod prepare;
mod procfs;
mod report;
mod run;
mod run_clock;
mod schedule;
mod spread;
mod table;
mod tally;
mod times;
mod usage;

pub(crate) use arguments::ARGUMENTS_LEN_MAX;
pub(crate) use cluster::{Cluster, ClusterOptions};
pub(crate) use html::page;
pub(crate) use plan::{Load, Plan};
pub(crate) use prepare::prepare;
pub(crate) use report::{Place, Report, RunReport};
pub(crate) use run::measure;
pub(crate) use table::render;
pub(crate) use usage::{Role, Roles};
