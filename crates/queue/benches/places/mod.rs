//! Placements over many invokers, as a scheduler has them in a batch.

use std::collections::BTreeMap;

use whiskraft_queue::{
    BuiltInPlacement, Candidate, Candidates, Placement, PlacementRequest, PlacementSettings, Random,
};
use whiskraft_types::{ByteSize, InvokerId};

const MEMORY: ByteSize = ByteSize::mib(256);

/// Placements over as many invokers as there are.
pub(crate) struct Places {
    placement: BuiltInPlacement,
    candidates: Candidates,
    request: PlacementRequest,
    random: Random,
}

impl Places {
    /// Numbers of invokers that are measured.
    pub(crate) const LENS: [u64; 3] = [10, 100, 1000];

    /// Three zones, all healthy, a third of the memory used.
    pub(crate) fn new(invokers: u64) -> Self {
        let candidate = |number| Candidate {
            invoker: InvokerId(number),
            usable: true,
            suspect: false,
            on_trial: false,
            total: ByteSize::mib(3 * 4096),
            free: ByteSize::mib(2 * 4096),
            tags: Vec::new(),
            dedicated: Vec::new(),
            kinds: Vec::new(),
            zone: format!("zone-{}", number % 3),
        };
        Self {
            placement: BuiltInPlacement {
                settings: PlacementSettings::default(),
            },
            candidates: Candidates::new((0..invokers).map(candidate)),
            request: PlacementRequest {
                namespace: "guest".parse().expect("a name"),
                kind: "python:3".to_owned(),
                memory: MEMORY,
                tags: Vec::new(),
                strict: false,
                blackbox: false,
                zones: BTreeMap::from([("zone-0".to_owned(), 2), ("zone-1".to_owned(), 1)]),
                failed: Vec::new(),
                refused: Vec::new(),
            },
            random: Random::seeded(1),
        }
    }

    /// Places one container, and ends it.
    pub(crate) fn place(&mut self) {
        let placed = self
            .placement
            .place(&self.request, &mut self.candidates, &mut self.random);
        let invoker = placed.expect("there is memory");
        self.candidates.give_back(invoker, MEMORY);
    }
}
