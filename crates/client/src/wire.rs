//! The bytes of an action's document.

use bytes::Bytes;
use whiskraft_proto::Message;
use whiskraft_proto::v1;
use whiskraft_types::Revision;

use crate::StoredAction;

pub(crate) fn encode_action(action: v1::Action) -> Bytes {
    action.encode_to_vec().into()
}

pub(crate) fn read_action(revision: Revision, body: Bytes) -> Result<StoredAction, String> {
    let action = v1::Action::decode(body).map_err(|error| format!("the document is no action: {error}"))?;
    StoredAction::from_wire(revision, action)
}
