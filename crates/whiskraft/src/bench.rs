//! The load of `whiskraft bench` and what it measures.
//!
//! A [`Plan`] says what is asked; [`prepare()`] stores what it needs; [`measure`] carries it out once and gives
//! a [`report::RunReport`]. Arrivals are due at fixed times ([`schedule`]) and sent by a thread of their own ([`open`]), or by callers
//! that wait for their answers ([`closed`]); every answer ends in a [`tally`]. What processes use is read from `/proc`
//! ([`usage`]). [`probe`] measures properties of a cluster beside its load, [`echo`] measures the wire alone. Several runs make a [`Report`], shown as text ([`table`]) and as a page ([`html`]).
//!
//! - **Invariant:** a latency counts from when the activation, or whatever is sent, was due, so one that a stall held back shows that stall.
//! - **Invariant:** in the open loop no arrival waits for the answer to an earlier one, up to a bound; what the bound holds
//!   back is sent late, counted, and reported.

mod arguments;
mod busy;
mod call;
mod closed;
mod cluster;
pub(crate) mod echo;
mod ensure;
mod html;
mod kind;
mod member;
mod mix;
mod notes;
mod open;
mod plan;
mod plot;
mod ports;
mod prepare;
pub(crate) mod probe;
mod procfs;
mod reasons;
mod report;
mod run;
mod run_clock;
mod schedule;
mod spread;
mod stages;
mod table;
mod tally;
mod times;
mod usage;
mod work;

pub(crate) use arguments::ARGUMENTS_LEN_MAX;
pub(crate) use cluster::{Cluster, ClusterOptions};
pub(crate) use html::page;
pub(crate) use plan::{Load, Plan};
pub(crate) use prepare::prepare;
pub(crate) use report::{Place, Report, RunReport};
pub(crate) use run::measure;
pub(crate) use table::render;
pub(crate) use usage::{Role, Roles};
