//! Why activations of a queue wait: a closed list, so that operators and programs can act on it.

/// The first thing that keeps the oldest waiting activation of a queue from a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WaitReason {
    /// The scheduler may not act: it has lost touch with the others.
    Fenced,
    /// The queue is on its way to another scheduler.
    Draining,
    /// Submitted again after a change of leader, and not every invoker has said yet whether it runs there.
    HeldBack,
    /// A new leader waits for the invokers to say which containers there are.
    TakingOver,
    /// Too many results wait for controllers that do not fetch them.
    ResultsOwed,
    /// The namespace may run nothing: its limit is zero.
    NamespaceLimitZero,
    /// The action cannot be started; its activations fail.
    ActionBroken,
    /// No invoker runs this kind of action, serves this namespace, has the tags it needs or is large enough.
    NoInvoker,
    /// The invokers that could run it have no memory left; shares decide who is next.
    NoMemory,
    /// Creations fail on the invokers; the next one is tried after a pause.
    CreationFailing,
    /// A container is on its way.
    ContainerStarting,
    /// The namespace uses all the containers it may.
    NamespaceLimit,
    /// The action uses all the containers it may.
    ActionLimit,
    /// All containers are at work, and they are enough to serve what waits in time.
    ContainersBusy,
    /// The next scaling decision is due in a moment.
    Deciding,
}

impl WaitReason {
    /// Every reason.
    pub const ALL: [Self; 15] = [
        Self::Fenced,
        Self::Draining,
        Self::HeldBack,
        Self::TakingOver,
        Self::ResultsOwed,
        Self::NamespaceLimitZero,
        Self::ActionBroken,
        Self::NoInvoker,
        Self::NoMemory,
        Self::CreationFailing,
        Self::ContainerStarting,
        Self::NamespaceLimit,
        Self::ActionLimit,
        Self::ContainersBusy,
        Self::Deciding,
    ];

    /// A short name for tables and labels, in lower case with hyphens.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fenced => "fenced",
            Self::Draining => "draining",
            Self::HeldBack => "held-back",
            Self::TakingOver => "taking-over",
            Self::ResultsOwed => "results-owed",
            Self::NamespaceLimitZero => "namespace-limit-zero",
            Self::ActionBroken => "action-broken",
            Self::NoInvoker => "no-invoker",
            Self::NoMemory => "no-memory",
            Self::CreationFailing => "creation-failing",
            Self::ContainerStarting => "container-starting",
            Self::NamespaceLimit => "namespace-limit",
            Self::ActionLimit => "action-limit",
            Self::ContainersBusy => "containers-busy",
            Self::Deciding => "deciding",
        }
    }
}
