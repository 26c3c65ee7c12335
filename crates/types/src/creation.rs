//! Why a container could not be created (`ContainerCreationError` of OpenWhisk's connector messages).

use serde::{Deserialize, Serialize};

/// Decides what happens to the activations that wait for the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CreationErrorClass {
    /// The platform's fault: activations wait until their retention ends, creation is tried again.
    Whisk,
    /// The action's fault: waiting activations fail at once.
    Developer,
}

/// A failed creation, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CreationError {
    /// No usable invoker, or no candidate left.
    NoAvailableInvokers,
    /// No invoker has the tags that the action cannot do without, or is large enough. Of a creation that goes on: it waits for
    /// memory.
    NoAvailableResources,
    /// The invoker's pool has no room, or no memory came free until the creation's deadline.
    ResourceNotEnough,
    /// The container's start failed.
    Whisk,
    /// The container ended before it was ready, or the sender is newer than we are.
    Unknown,
    /// The invoker is shutting down.
    ShuttingDown,
    /// No answer within the creation deadline.
    Timeout,
    /// The namespace's limit is zero.
    ZeroNamespaceLimit,
    /// The action cannot be executed.
    NonExecutable,
    /// Action or code could not be read.
    Fetch,
    /// The image could not be pulled.
    BlackBox,
    /// The action's limits exceed the namespace's.
    InvalidLimit,
}

impl CreationError {
    /// Every kind, for tests that go over all of them.
    pub const ALL: [Self; 12] = [
        Self::NoAvailableInvokers,
        Self::NoAvailableResources,
        Self::ResourceNotEnough,
        Self::Whisk,
        Self::Unknown,
        Self::ShuttingDown,
        Self::Timeout,
        Self::ZeroNamespaceLimit,
        Self::NonExecutable,
        Self::Fetch,
        Self::BlackBox,
        Self::InvalidLimit,
    ];

    /// A short name for tables and labels, in lower case with hyphens.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoAvailableInvokers => "no-available-invokers",
            Self::NoAvailableResources => "no-available-resources",
            Self::ResourceNotEnough => "resource-not-enough",
            Self::Whisk => "whisk",
            Self::Unknown => "unknown",
            Self::ShuttingDown => "shutting-down",
            Self::Timeout => "timeout",
            Self::ZeroNamespaceLimit => "zero-namespace-limit",
            Self::NonExecutable => "non-executable",
            Self::Fetch => "fetch",
            Self::BlackBox => "black-box",
            Self::InvalidLimit => "invalid-limit",
        }
    }

    /// Whose fault it is.
    #[must_use]
    pub const fn class(self) -> CreationErrorClass {
        match self {
            Self::NonExecutable | Self::Fetch | Self::BlackBox | Self::InvalidLimit => {
                CreationErrorClass::Developer
            }
            Self::NoAvailableInvokers
            | Self::NoAvailableResources
            | Self::ResourceNotEnough
            | Self::Whisk
            | Self::Unknown
            | Self::ShuttingDown
            | Self::Timeout
            | Self::ZeroNamespaceLimit => CreationErrorClass::Whisk,
        }
    }

    /// Whether the same creation may be tried on another invoker.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::ResourceNotEnough | Self::Whisk | Self::Unknown | Self::ShuttingDown
        )
    }
}
