//! Schedulers join, vote, lead, and go; whatever fails on the way, asking again completes it.

mod support;

use std::collections::BTreeSet;

use support::{Cluster, eventually, limit, open_session, propose, put_namespace};
use whiskraft_proto::v1;
use whiskraft_proto::v1::peer_client::PeerClient;
use whiskraft_raft::{NewMember, Node, NodeConfig, Role, Settings, StartError, StopReason};
use whiskraft_state::{Command, MemberRecord};
use whiskraft_types::{MemberOrder, MembershipError, SchedulerId};

const fn remove(id: u64) -> MemberOrder {
    MemberOrder::Remove {
        id: SchedulerId(id),
        force: false,
    }
}

const fn demote(id: u64) -> MemberOrder {
    MemberOrder::Demote {
        id: SchedulerId(id),
        force: false,
    }
}

const fn promote(id: u64) -> MemberOrder {
    MemberOrder::Promote(SchedulerId(id))
}

fn voters(node: &Node) -> BTreeSet<u64> {
    let peers = node.status().peers.into_iter();
    peers.filter(|(_, peer)| peer.voter).map(|(id, _)| id.0).collect()
}

fn members(node: &Node) -> BTreeSet<u64> {
    node.status().peers.keys().map(|id| id.0).collect()
}

async fn until_voters(node: &Node, wanted: &[u64]) {
    let wanted: BTreeSet<u64> = wanted.iter().copied().collect();
    eventually(&format!("{wanted:?} vote"), async || {
        (voters(node) == wanted).then_some(())
    })
    .await;
}

/// Gives an order until it is carried out; what does not pass by itself fails the test.
async fn carry_out(node: &Node, order: MemberOrder) {
    eventually(&format!("{order:?} is carried out"), async || {
        match node.change_members(order).await {
            Ok(_) => Some(()),
            Err(error) if error.is_passing() || matches!(error, MembershipError::Silent(_)) => None,
            Err(error) => panic!("{order:?}: {error}"),
        }
    })
    .await;
}

/// Waits until a node counts another as silent.
async fn until_silent(node: &Node, id: u64) {
    eventually(&format!("{id} counts as silent"), async || {
        (!node.reachable(SchedulerId(id))).then_some(())
    })
    .await;
}

fn config_again(cluster: &Cluster, dir: &str, address: std::net::SocketAddr) -> NodeConfig {
    NodeConfig {
        peer_listener: std::net::TcpListener::bind(address).expect("its address is free again"),
        ..cluster.joining(1, dir)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fourth_scheduler_joins_votes_and_restarts() {
    let cluster = Cluster::running(3, Settings::default()).await;
    let (revision, _) = propose(cluster.node(1), put_namespace("a", 3)).await;
    let config = cluster.joining(2, "fourth");
    let address = config.peer_listener.local_addr().unwrap();
    let fourth = Node::start(config).await.unwrap();
    let id = fourth.id();
    assert!(
        id.0 > revision.0,
        "its number is the index of an entry proposed for it: {id}"
    );
    assert_eq!(fourth.cluster_id(), cluster.node(1).cluster_id());
    fourth.wait_applied(revision).await.unwrap();
    eventually("it votes", async || {
        fourth
            .status()
            .peers
            .get(&id)
            .is_some_and(|peer| peer.voter)
            .then_some(())
    })
    .await;
    propose(&fourth, put_namespace("b", 4)).await;
    eventually("it is in the members table", async || {
        cluster
            .node(1)
            .read(|state| state.member(id).is_some_and(|row| row.version == "test"))
            .then_some(())
    })
    .await;

    fourth.shutdown().await;
    let mut config = cluster.joining(2, "fourth");
    config.peer_listener = std::net::TcpListener::bind(address).unwrap();
    let again = Node::start(config).await.unwrap();
    assert_eq!(again.id(), id);
    again.read_index().await.unwrap();
    assert_eq!(limit(&again, "b"), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_grows_from_one_to_five_and_shrinks_to_three() {
    let cluster = Cluster::running(1, Settings::default()).await;
    let first = cluster.node(1);
    let mut joined = Vec::new();
    for number in 0..4 {
        let node = Node::start(cluster.joining(1, &format!("joined-{number}")))
            .await
            .unwrap();
        let id = node.id().0;
        eventually("it votes", async || voters(first).contains(&id).then_some(())).await;
        joined.push(node);
    }
    assert_eq!(voters(first).len(), 5);
    propose(&joined[3], put_namespace("a", 5)).await;
    // The one that leads goes first, asked of itself; then another.
    let (leader, other) = (first, joined.pop().unwrap());
    carry_out(leader, MemberOrder::TransferLeader(Some(SchedulerId(1)))).await;
    leader.change_members(remove(1)).await.unwrap();
    assert_eq!(leader.stopped().await, StopReason::Removed(SchedulerId(1)));
    joined[0].change_members(remove(other.id().0)).await.unwrap();
    assert_eq!(other.stopped().await, StopReason::Removed(other.id()));
    for node in &joined {
        eventually("three are left", async || {
            (members(node).len() == 3).then_some(())
        })
        .await;
        node.read_index().await.unwrap();
        assert_eq!(limit(node, "a"), 5);
    }
    propose(&joined[0], put_namespace("b", 3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_votes_when_an_operator_says_so_and_not_before() {
    let cluster = Cluster::running(1, Settings::default()).await;
    let first = cluster.node(1);
    let config = NodeConfig {
        learner: true,
        ..cluster.joining(1, "learner")
    };
    let address = config.peer_listener.local_addr().unwrap();
    let learner = Node::start(config).await.unwrap();
    let id = learner.id().0;
    assert_eq!(
        first
            .change_members(MemberOrder::TransferLeader(Some(SchedulerId(id))))
            .await,
        Err(MembershipError::NotVoter(SchedulerId(id)))
    );
    // One that joins later and asks for its vote has it; the learner has none still.
    let voter = Node::start(cluster.joining(1, "voter")).await.unwrap();
    until_voters(first, &[1, voter.id().0]).await;
    carry_out(first, promote(id)).await;
    until_voters(&learner, &[1, id, voter.id().0]).await;
    carry_out(first, promote(id)).await;

    carry_out(&learner, demote(id)).await;
    until_voters(first, &[1, voter.id().0]).await;
    assert!(members(first).contains(&id));
    learner.shutdown().await;
    // It does not ask for its vote again by itself.
    let again = Node::start(config_again(&cluster, "learner", address))
        .await
        .unwrap();
    let third = Node::start(cluster.joining(1, "third")).await.unwrap();
    until_voters(first, &[1, voter.id().0, third.id().0]).await;
    assert_eq!(again.id().0, id);
    propose(&again, put_namespace("a", 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_voted_once_and_was_demoted_asks_for_no_vote_after_a_restart() {
    let cluster = Cluster::running(1, Settings::default()).await;
    let first = cluster.node(1);
    let config = cluster.joining(1, "second");
    let address = config.peer_listener.local_addr().unwrap();
    let second = Node::start(config).await.unwrap();
    let id = second.id().0;
    until_voters(&second, &[1, id]).await;
    // A third voter first, so that what follows needs no luck with elections of two.
    let third = Node::start(cluster.joining(1, "third")).await.unwrap();
    until_voters(first, &[1, id, third.id().0]).await;
    carry_out(first, demote(id)).await;
    second.shutdown().await;
    let again = Node::start(config_again(&cluster, "second", address))
        .await
        .unwrap();
    let fourth = Node::start(cluster.joining(1, "fourth")).await.unwrap();
    until_voters(first, &[1, third.id().0, fourth.id().0]).await;
    assert!(!voters(&again).contains(&id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_scheduler_stops_and_the_rest_go_on() {
    let cluster = Cluster::running(3, Settings::default()).await;
    let removed = cluster.follower().await;
    let session = open_session(cluster.node(removed), 1, std::time::Duration::from_secs(60)).await;
    // Asked of the one that goes; it finds the leader.
    cluster
        .node(removed)
        .change_members(remove(removed))
        .await
        .unwrap();
    assert_eq!(
        cluster.node(removed).stopped().await,
        StopReason::Removed(SchedulerId(removed))
    );
    let rest = (1..=3).find(|id| *id != removed).unwrap();
    propose(cluster.node(rest), put_namespace("a", 1)).await;
    assert_eq!(cluster.node(rest).status().peers.len(), 2);
    cluster.node(rest).read_index().await.unwrap();
    assert!(cluster.node(rest).read(|state| state.session(session).is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_can_be_removed() {
    let cluster = Cluster::running(3, Settings::default()).await;
    let leader = cluster.leader().await;
    let rest = cluster.follower().await;
    cluster.node(rest).change_members(remove(leader)).await.unwrap();
    propose(cluster.node(rest), put_namespace("a", 1)).await;
    assert!(!members(cluster.node(rest)).contains(&leader));
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_goes_where_it_is_ordered_to() {
    let cluster = Cluster::running(3, Settings::default()).await;
    let leader = cluster.leader().await;
    let to = cluster.follower().await;
    let order = MemberOrder::TransferLeader(Some(SchedulerId(to)));
    assert_eq!(cluster.node(to).change_members(order).await, Ok(SchedulerId(to)));
    assert_eq!(cluster.leader().await, to);
    assert_eq!(
        cluster.node(leader).change_members(order).await,
        Ok(SchedulerId(to)),
        "it leads already"
    );
    let next = cluster
        .node(leader)
        .change_members(MemberOrder::TransferLeader(None))
        .await;
    assert_ne!(next.unwrap(), SchedulerId(to));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_scheduler_is_replaced_and_disturbs_nobody_when_it_returns() {
    let mut cluster = Cluster::running(3, Settings::default()).await;
    let dead = cluster.follower().await;
    cluster.stop(dead).await;
    let through = cluster.leader().await;
    let new = Node::start(cluster.joining(through, "new")).await.unwrap();
    let asked = cluster.node(through);
    eventually("the new one votes", async || {
        voters(asked).contains(&new.id().0).then_some(())
    })
    .await;
    asked.change_members(remove(dead)).await.unwrap();
    assert_eq!(voters(asked).len(), 3);
    assert_eq!(
        asked.change_members(remove(dead)).await,
        Err(MembershipError::NotMember(SchedulerId(dead)))
    );

    let leader = cluster.leader().await;
    let term = cluster.node(leader).status().term;
    match cluster.try_start(dead).await {
        Err(StartError::Unknown(reason)) => {
            assert!(reason.contains("was removed from the cluster"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    propose(&new, put_namespace("a", 2)).await;
    assert_eq!(
        cluster.node(leader).status().term,
        term,
        "no election for its sake"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_loses_its_leader_is_completed_by_asking_again() {
    let mut cluster = Cluster::running(3, Settings::default()).await;
    let through = cluster.follower().await;
    let config = NodeConfig {
        learner: true,
        ..cluster.joining(through, "learner")
    };
    let (learner, through) = (Node::start(config).await.unwrap(), SchedulerId(through));
    let id = learner.id().0;
    for round in 0..3 {
        // Promoted, it may have won the election; who dies is to be one of the others.
        eventually("the newcomer does not lead", async || {
            let leads = learner.status().role == Role::Leader;
            if leads {
                drop(
                    learner
                        .change_members(MemberOrder::TransferLeader(Some(through)))
                        .await,
                );
            }
            (!leads).then_some(())
        })
        .await;
        let leader = cluster.leader().await;
        let asked = cluster
            .nodes
            .keys()
            .map(|id| id.0)
            .find(|id| *id != leader)
            .unwrap();
        let asked = cluster.node(asked).clone();
        let order = if round % 2 == 0 { promote(id) } else { demote(id) };
        let dying = cluster.nodes.remove(&SchedulerId(leader)).unwrap();
        let (_, ()) = tokio::join!(asked.change_members(order), async move { drop(dying) });
        carry_out(&asked, order).await;
        assert_eq!(voters(&asked).contains(&id), round % 2 == 0, "round {round}");
        propose(&learner, put_namespace("a", round)).await;
        cluster.start(leader).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_leave_no_quorum_is_refused() {
    let mut cluster = Cluster::running(3, Settings::default()).await;
    let dead = cluster.follower().await;
    cluster.stop(dead).await;
    let leader = cluster.leader().await;
    let other = (1..=3).find(|id| *id != dead && *id != leader).unwrap();
    let node = cluster.node(leader);
    until_silent(node, dead).await;
    let refused = Err(MembershipError::NoQuorum {
        voters: 2,
        answering: 1,
    });
    for order in [remove(other), demote(other), remove(leader)] {
        assert_eq!(node.change_members(order).await, refused, "{order:?}");
    }
    let silent = MemberOrder::TransferLeader(Some(SchedulerId(dead)));
    assert_eq!(
        node.change_members(silent).await,
        Err(MembershipError::Silent(SchedulerId(dead)))
    );
    node.change_members(remove(dead)).await.unwrap();
    assert_eq!(voters(node).len(), 2);
}

fn newcomer(address: &str) -> NewMember {
    NewMember {
        cluster_name: "test".to_owned(),
        peer_address: address.to_owned(),
        client_address: String::new(),
        incarnation: [9; 16],
        learner: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_make_no_sense_are_refused_with_a_reason() {
    let cluster = Cluster::running(1, Settings::default()).await;
    let node = cluster.node(1);
    assert_eq!(
        node.change_members(remove(9)).await,
        Err(MembershipError::NotMember(SchedulerId(9)))
    );
    for order in [remove(1), demote(1)] {
        assert_eq!(
            node.change_members(order).await,
            Err(MembershipError::LastVoter(SchedulerId(1)))
        );
    }
    let taken = cluster.addresses[&SchedulerId(1)].to_string();
    let error = node.add_member(newcomer(&taken)).await.unwrap_err().to_string();
    assert!(error.contains("is the address of scheduler 1"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_joins_under_a_wrong_name_or_address_is_refused() {
    let cluster = Cluster::running(1, Settings::default()).await;
    let stranger = Cluster::running(1, Settings::default()).await;
    let wrong_name = NodeConfig {
        cluster_name: "other".to_owned(),
        ..cluster.joining(1, "a")
    };
    let wrong_address = NodeConfig {
        advertise_peer: Some(stranger.addresses[&SchedulerId(1)].to_string()),
        ..cluster.joining(1, "b")
    };
    for (config, part) in [
        (wrong_name, "is configured for cluster \"other\""),
        (wrong_address, "another scheduler answers at"),
    ] {
        match Node::start(config).await {
            Err(StartError::Config(reason)) => assert!(reason.contains(part), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(members(cluster.node(1)), BTreeSet::from([1]));
}

/// The identity of the directory of whoever answers at an address.
async fn incarnation_at(address: &str) -> Option<[u8; 16]> {
    let mut client = PeerClient::connect(format!("http://{address}")).await.ok()?;
    let request = v1::IdentifyRequest::default();
    let answer = client.identify(request).await.ok()?.into_inner();
    <[u8; 16]>::try_from(&answer.incarnation[..]).ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_a_former_leader_gave_a_number_is_given_no_other() {
    let cluster = Cluster::running(1, Settings::default()).await;
    let node = cluster.node(1);
    // It says who it is, and finds nobody to let it in.
    let config = NodeConfig {
        join: Some(vec!["127.0.0.1:1".to_owned()]),
        ..cluster.joining(1, "waits")
    };
    let address = config.peer_listener.local_addr().unwrap().to_string();
    let waiting = tokio::spawn(Node::start(config));
    let incarnation = eventually("it says who it is", async || incarnation_at(&address).await).await;
    // What a leader wrote that died: in the log, and in the tables a moment after the next one is asked.
    let given = Command::PutMember {
        id: SchedulerId(77),
        member: MemberRecord {
            peer_address: address.clone(),
            client_address: String::new(),
            zone: String::new(),
            version: String::new(),
            incarnation,
            draining: false,
        },
    };
    let again = NewMember {
        incarnation,
        ..newcomer(&address)
    };
    let (_, number) = tokio::join!(propose(node, given), node.add_member(again));
    assert_eq!(number, Ok(SchedulerId(77)));
    let numbers = node.read(|state| {
        let own = state
            .members()
            .filter(|(_, member)| member.incarnation == incarnation);
        own.count()
    });
    assert_eq!(numbers, 1, "nobody is two members");
    waiting.abort();
}
