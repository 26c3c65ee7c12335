//! Orders about the membership, and backups, as any scheduler takes them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use common::{Cluster, soon};
use tonic::transport::Channel;
use whiskraft_proto::v1;
use whiskraft_proto::v1::change_members_response::Outcome;
use whiskraft_proto::v1::operator_client::OperatorClient;
use whiskraft_types::{ActionLimits, MemberOrder, MembershipError, SchedulerId};

async fn operator(cluster: &Cluster, at: u64) -> OperatorClient<Channel> {
    OperatorClient::new(cluster.channel(at).await)
}

async fn order(cluster: &Cluster, at: u64, order: MemberOrder) -> Result<SchedulerId, MembershipError> {
    let mut operator = operator(cluster, at).await;
    let answer = operator.change_members(v1::MemberOrder::from(order));
    let answer = soon("answer to an order", answer).await.unwrap();
    match answer.into_inner().outcome.unwrap() {
        Outcome::Scheduler(id) => Ok(SchedulerId(id)),
        Outcome::Refusal(refusal) => Err(refusal.into()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_scheduler_takes_an_order_and_says_why_not() {
    let cluster = Cluster::start().await;
    for at in 1..=3 {
        let to = SchedulerId(at % 3 + 1);
        let transfer = MemberOrder::TransferLeader(Some(to));
        assert_eq!(order(&cluster, at, transfer).await, Ok(to));
        let stranger = MemberOrder::Promote(SchedulerId(99));
        assert_eq!(
            order(&cluster, at, stranger).await,
            Err(MembershipError::NotMember(SchedulerId(99)))
        );
    }
    let unreadable = v1::MemberOrder::default();
    let refused = operator(&cluster, 1).await.change_members(unreadable).await;
    assert_eq!(refused.unwrap_err().code(), tonic::Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_streamed_whole_from_any_scheduler() {
    let cluster = Cluster::start().await;
    cluster.put_action("guest/hello", ActionLimits::default()).await;
    let dir = tempfile::tempdir().unwrap();
    for at in 1..=3 {
        let mut operator = operator(&cluster, at).await;
        let pieces = soon("a backup begins", operator.backup(v1::BackupRequest {})).await;
        let mut pieces = pieces.unwrap().into_inner();
        let mut bytes = Vec::new();
        while let Some(piece) = soon("a piece", pieces.message()).await.unwrap() {
            assert_eq!(piece.offset, bytes.len() as u64);
            bytes.extend(piece.data);
        }
        let file = dir.path().join(at.to_string());
        std::fs::write(&file, bytes).unwrap();
        let backup = whiskraft_raft::verify(&file).unwrap();
        assert_eq!(backup.actions, 1, "the action was acknowledged before");
        assert_eq!(backup.cluster_id, cluster.members[&at].node.cluster_id());
    }
}
