//! The action proxy: serves OpenWhisk's `POST /init` and `POST /run` for python3, node, shell and executables.
//!
//! Started by the invoker as a child process per container, or as the first process of an image. Stands alone: it
//! knows nothing of queues or schedulers. Start at [`serve`]; [`run_command_line`] is the whole program around it.
//! Invariant: user code never runs in the proxy's own process, and its environment is built from scratch.
//! Invariant: all output of an activation is in the streams, sentinels included, before its answer is sent.

mod answer;
mod archive;
mod code;
mod command;
mod family;
mod launcher;
mod link;
mod options;
mod orphans;
mod request;
mod sentinel;
mod serve;
mod stage;

pub use command::run_command_line;
pub use options::{Family, Listen, Options, OptionsError, Stage};
pub use sentinel::SENTINEL;
pub use serve::{ServeError, Stopped, serve};
