//! Places at which a test can make the process die: see `docs/fault-scenarios.md`, section 3. Without the feature
//! `failpoints` they are nothing.

/// A named place.
macro_rules! failpoint {
    ($name:literal) => {{
        #[cfg(feature = "failpoints")]
        fail::fail_point!($name);
    }};
}

pub(crate) use failpoint;
