//! What a lane's leader has to say of a commit waits a moment for the entries that mostly follow: half of all requests say
//! nothing else, and each costs two processes more than it tells them.
//!
//! A follower then learns a little later what is committed. Nobody waits for that but whoever reads its copy.

use std::time::Duration;

use futures::stream::{self, Stream, StreamExt};
use openraft::raft::AppendEntriesRequest;

use crate::types::Types;

/// Longest time that a commit waits for company.
pub(super) const WAIT: Duration = Duration::from_millis(2);

/// The requests, but for those without entries that another one followed within [`WAIT`]: it says all that they said, and
/// openraft counts an acknowledgement for all that came before it.
pub(super) fn in_company<S>(input: S) -> impl Stream<Item = AppendEntriesRequest<Types>> + Send
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin,
{
    stream::unfold(input.fuse(), async |mut input| {
        let mut request = input.next().await?;
        let over = tokio::time::sleep(WAIT);
        tokio::pin!(over);
        while request.entries.is_empty() {
            tokio::select! {
                biased;
                next = input.next() => match next {
                    Some(next) => request = next,
                    None => break,
                },
                () = &mut over => break,
            }
        }
        Some((request, input))
    })
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;
    use crate::types::{Entry, LeaderId, LogId, Vote};

    fn id(index: u64) -> LogId {
        LogId {
            leader_id: LeaderId { term: 1, node_id: 1 },
            index,
        }
    }

    /// A request that says that `committed` is, with one entry or none.
    fn request(committed: u64, entry: Option<u64>) -> AppendEntriesRequest<Types> {
        let entries = entry.into_iter().map(|index| Entry {
            log_id: id(index),
            payload: EntryPayload::Blank,
        });
        AppendEntriesRequest {
            vote: Vote::new_committed(1, 1),
            prev_log_id: None,
            entries: entries.collect(),
            leader_commit: Some(id(committed)),
        }
    }

    /// What a request says: what is committed, and how many entries it has.
    fn said(request: Option<AppendEntriesRequest<Types>>) -> Option<(u64, usize)> {
        request.map(|request| (request.leader_commit.unwrap().index, request.entries.len()))
    }

    #[tokio::test]
    async fn a_commit_goes_along_with_entries_that_follow_and_alone_after_a_moment() {
        let (sender, receiver) = mpsc::channel(8);
        let sent = in_company(ReceiverStream::new(receiver));
        tokio::pin!(sent);
        for (committed, entry) in [(1, None), (2, None), (2, Some(3)), (3, Some(4))] {
            sender.send(request(committed, entry)).await.unwrap();
        }
        assert_eq!(said(sent.next().await), Some((2, 1)));
        assert_eq!(said(sent.next().await), Some((3, 1)), "entries wait for nothing");
        sender.send(request(4, None)).await.unwrap();
        assert_eq!(said(sent.next().await), Some((4, 0)), "nothing followed");
        sender.send(request(5, None)).await.unwrap();
        drop(sender);
        assert_eq!(said(sent.next().await), Some((5, 0)), "the last word is said");
        assert_eq!(said(sent.next().await), None);
    }
}
