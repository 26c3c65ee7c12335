//! Cancelling and dead letters at a fake scheduler: answers as scripted.

use tonic::{Request, Response, Status};
use whiskraft_proto::v1;

use super::{Fake, Seen};

/// What it answers: one answer after the other, the last one stays.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    pub cancel: Vec<v1::CancelActivationResponse>,
    pub list: Vec<v1::ListDeadLettersResponse>,
    pub redrive: Vec<v1::RedriveDeadLettersResponse>,
    pub purge: Vec<v1::PurgeDeadLettersResponse>,
}

impl Fake {
    fn answer<T: Clone + Default>(
        &self,
        seen: Seen,
        script: impl FnOnce(&mut Asked) -> &mut Vec<T>,
    ) -> Result<Response<T>, Status> {
        self.check_up()?;
        self.see(seen);
        let answer = self.with(|state| {
            let script = script(&mut state.asked);
            match script.len() {
                0 | 1 => script.first().cloned().unwrap_or_default(),
                _ => script.remove(0),
            }
        });
        Ok(Response::new(answer))
    }

    pub(super) fn cancel(
        &self,
        request: Request<v1::CancelActivationRequest>,
    ) -> Result<Response<v1::CancelActivationResponse>, Status> {
        self.answer(Seen::Cancel(request.into_inner()), |asked| &mut asked.cancel)
    }

    pub(super) fn list(
        &self,
        request: Request<v1::ListDeadLettersRequest>,
    ) -> Result<Response<v1::ListDeadLettersResponse>, Status> {
        self.answer(Seen::List(request.into_inner()), |asked| &mut asked.list)
    }

    pub(super) fn redrive(
        &self,
        request: Request<v1::RedriveDeadLettersRequest>,
    ) -> Result<Response<v1::RedriveDeadLettersResponse>, Status> {
        self.answer(Seen::Redrive(request.into_inner()), |asked| &mut asked.redrive)
    }

    pub(super) fn purge(
        &self,
        request: Request<v1::PurgeDeadLettersRequest>,
    ) -> Result<Response<v1::PurgeDeadLettersResponse>, Status> {
        self.answer(Seen::Purge(request.into_inner()), |asked| &mut asked.purge)
    }
}
