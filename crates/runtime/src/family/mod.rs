//! The three ways in which runtimes answer, by the specification's columns ActionLoop, Node.js and skeleton.

mod action_loop;
mod node;
mod skeleton;

use std::collections::BTreeMap;
use std::ffi::OsString;

use crate::answer::Answer;
use crate::options::{Family, Options};
use crate::serve::Stop;

use action_loop::ActionLoop;
use node::Node;
use skeleton::Skeleton;

/// Said for a second `/init` after a good one, by every family.
const ALREADY_INITIALISED: &str = "Cannot initialize the action more than once.";
/// Said for an `/init` without code or without a usable entry point.
const NO_CODE: &str = "Missing main/no code to execute.";
/// Said for code that cannot be made into something that runs.
const NO_BINARY: &str = "The action failed to generate or locate a binary. See logs for details.";
/// Said for a result that is no dictionary.
const NO_DICTIONARY: &str = "The action did not return a dictionary or array.";

/// Runs the actions of one family.
pub(crate) enum Runner {
    /// python3.
    ActionLoop(ActionLoop),
    /// node.
    Node(Node),
    /// sh and native.
    Skeleton(Skeleton),
}

impl Runner {
    /// Gets ready for an `/init`; interpreters are started at once, to have that behind us when it comes.
    pub(crate) fn start(options: Options, stop: Stop) -> Self {
        match options.family {
            Family::Python => Self::ActionLoop(ActionLoop::start(options, stop)),
            Family::Node => Self::Node(Node::start(options, stop)),
            Family::Shell | Family::Native => Self::Skeleton(Skeleton::new(options)),
        }
    }

    /// `POST /init`.
    pub(crate) async fn init(&self, body: &[u8]) -> Answer {
        match self {
            Self::ActionLoop(runner) => runner.init(body).await,
            Self::Node(runner) => runner.init(body).await,
            Self::Skeleton(runner) => runner.init(body).await,
        }
    }

    /// `POST /run`.
    pub(crate) async fn run(&self, body: &[u8]) -> Answer {
        match self {
            Self::ActionLoop(runner) => runner.run(body).await,
            Self::Node(runner) => runner.run(body).await,
            Self::Skeleton(runner) => runner.run(body).await,
        }
    }

    /// Any other path.
    pub(crate) fn unknown_path(&self) -> Answer {
        match self {
            Self::ActionLoop(_) => Answer::new(200, ""),
            Self::Node(_) => Answer::error(500, "Bad request."),
            Self::Skeleton(_) => Answer::error(404, "Not found."),
        }
    }
}

/// Variables of the container that actions see: ours are all named `__OW_…`, nothing else is passed on.
fn container_variables() -> BTreeMap<OsString, OsString> {
    std::env::vars_os()
        .filter(|(name, _)| name.as_encoded_bytes().starts_with(b"__OW_"))
        .collect()
}
