//! Many invocations of one action in a row, judged and measured: `whiskraft invoke --repeat`.
//!
//! Workers take numbers from a shared counter and call the SDK; one collector judges the outcomes in the order they
//! end. An activation is *right* if it ended with success and the result is what was expected, *wrong* if it ended
//! otherwise, *lost* if no record of it arrived.

mod collect;
mod report;
mod run;
mod template;

pub(crate) use run::{Plan, reason, run};
pub(crate) use template::Template;
