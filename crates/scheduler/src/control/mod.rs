//! Control streams of invokers.

pub(crate) mod hello;
pub(crate) mod registry;
pub(crate) mod stream;
