//! Which placement a cluster uses, as its configuration names it.

use std::fmt;
use std::str::FromStr;

use crate::placement::{BuiltInPlacement, LeastLoaded, Placement, PlacementSettings};

/// A policy that can be configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PlacementPolicy {
    /// Spread over zones, then by chance.
    #[default]
    BuiltIn,
    /// The invoker with the largest part of its memory left.
    LeastLoaded,
}

/// A text names no placement policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no placement policy; write built-in or least-loaded")]
pub struct ParsePolicyError {
    text: String,
}

impl PlacementPolicy {
    /// Every policy.
    pub const ALL: [Self; 2] = [Self::BuiltIn, Self::LeastLoaded];

    /// Its name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BuiltIn => "built-in",
            Self::LeastLoaded => "least-loaded",
        }
    }

    /// The placement that follows it.
    #[must_use]
    pub fn placement(self, settings: PlacementSettings) -> Box<dyn Placement> {
        match self {
            Self::BuiltIn => Box::new(BuiltInPlacement { settings }),
            Self::LeastLoaded => Box::new(LeastLoaded { settings }),
        }
    }
}

impl FromStr for PlacementPolicy {
    type Err = ParsePolicyError;

    fn from_str(text: &str) -> Result<Self, ParsePolicyError> {
        let named = Self::ALL.into_iter().find(|policy| policy.name() == text.trim());
        named.ok_or_else(|| ParsePolicyError {
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for PlacementPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
