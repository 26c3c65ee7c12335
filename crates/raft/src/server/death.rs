//! A supervisor says that a process has ended.

use tonic::Status;
use whiskraft_proto::v1;
use whiskraft_types::SchedulerId;

use super::{PeerService, invalid};
use crate::deaths;
use crate::wire;

impl PeerService {
    /// Ends what that process held. Whoever can reach this listener is trusted, as with every message of a peer.
    pub(super) async fn on_report_end(
        &self,
        request: v1::ReportEndRequest,
    ) -> Result<v1::ReportEndResponse, Status> {
        let running = self.admit(request.envelope.as_ref())?;
        let from = request.envelope.map_or(0, |envelope| envelope.from);
        let incarnation = wire::parse_incarnation(&request.incarnation).map_err(invalid)?;
        let incarnation = incarnation.ok_or_else(|| invalid("the report names no process"))?;
        if from == running.core.id() {
            return Err(invalid("this process has not ended"));
        }
        let groups = running.groups.values().map(|served| &served.group);
        let answer = deaths::receive(&running.core, groups, SchedulerId(from), incarnation).await;
        Ok(answer.into())
    }
}
