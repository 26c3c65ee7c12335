//! Chooses invokers for containers that have no slot yet, so that slot and place are one entry of the log.
//!
//! Only while nobody has to come before them: what has to wait for its turn waits with its slot (`placing.rs`). Nothing hangs on a
//! choice: the log gives no place where there is no memory by then, and what comes without one is placed afterwards.

use whiskraft_queue::Candidates;
use whiskraft_state::{DocumentKey, SlotRequest};
use whiskraft_types::{ByteSize, ContainerId, InvokerId, SessionId};

use crate::creation::actor::CreationActor;
use crate::creation::in_progress::PlacelessSum;
use crate::creation::place;
use crate::creation::placing::TRIES_MAX;

impl CreationActor {
    /// The requests of a reservation that is about to be proposed, each with invokers for its containers: as many as find one.
    pub(super) fn choose(
        &mut self,
        session: SessionId,
        requests: Vec<SlotRequest>,
    ) -> Vec<(SlotRequest, Vec<InvokerId>)> {
        self.placer.settle_ahead();
        let Some(mut candidates) = self.unless_others_wait(sum(&requests)) else {
            return requests
                .into_iter()
                .map(|request| (request, Vec::new()))
                .collect();
        };
        let mut tries = TRIES_MAX;
        let with_places = requests.into_iter().map(|request| {
            let places = self.choose_for(session, &request, &mut candidates, &mut tries);
            (request, places)
        });
        with_places.collect()
    }

    fn choose_for(
        &mut self,
        session: SessionId,
        slots: &SlotRequest,
        candidates: &mut Candidates,
        tries: &mut usize,
    ) -> Vec<InvokerId> {
        let (context, profiles) = (&self.parts.context, &self.parts.profiles);
        let newest = context.node.read(|state| {
            let key = DocumentKey::action(&slots.key.action)?;
            Some(state.document(&key)?.revision)
        });
        if newest != Some(slots.revision) {
            return Vec::new(); // Its creation will say that it has changed.
        }
        let Some(needs) = profiles.needs(&context.node, &slots.key.action, slots.revision) else {
            return Vec::new(); // Its creation will say what is the matter.
        };
        let request = place::request_for(context, &slots.key, slots.memory, &needs);
        let mut places = Vec::new();
        for seq in (slots.first_seq..).take((slots.count as usize).min(*tries)) {
            *tries -= 1;
            let id = ContainerId { session, seq };
            // The others of the queue need as much.
            let Ok(invoker) = self.placer.place_ahead(id, &request, candidates) else {
                break;
            };
            places.push(invoker);
        }
        places
    }
}

/// What they ask for.
fn sum(requests: &[SlotRequest]) -> PlacelessSum {
    let sums = requests.iter().map(|request| PlacelessSum {
        together: ByteSize::bytes(request.memory.as_bytes().saturating_mul(request.count.into())),
        largest: request.memory,
        ..PlacelessSum::default()
    });
    sums.fold(PlacelessSum::default(), PlacelessSum::and)
}
