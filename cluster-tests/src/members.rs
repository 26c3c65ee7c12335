//! Schedulers that come and go: outside the initial cluster, made to join it, let go, restored from a backup.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use whiskraft_proto::v1;
use whiskraft_proto::v1::operator_client::OperatorClient;

use crate::cluster::{Cluster, Links, Member, words};
use crate::wait::until;

/// Time until a scheduler that joins is a member; far above what it takes, so that only a hang fails.
const JOIN_LIMIT: Duration = Duration::from_secs(60);

/// A scheduler that is not a member yet.
#[derive(Debug)]
pub struct Newcomer {
    /// How to start it, and its process while it runs.
    pub member: Member,
    links: Links,
}

impl Cluster {
    /// A scheduler that is to join through these others, with more arguments. It does not run yet.
    pub async fn newcomer(&mut self, through: &[u64], more: &[&str]) -> Newcomer {
        self.newcomers += 1;
        let name = format!("joined-{}", self.newcomers);
        let links = Links::new(&name, &self.switchboard).await;
        let address = |id: &u64| self.links[id].peer.address().to_string();
        let through: Vec<String> = through.iter().map(address).collect();
        let mut args = words(&["scheduler", "--join", &through.join(",")]);
        args.extend(words(&["--advertise-peer", &links.peer.address().to_string()]));
        args.extend(links.args());
        args.extend(words(more));
        let home = self.dir().join(&name);
        let member = self.member(&name, ("--data-dir", home), args, &self.set);
        Newcomer { member, links }
    }

    /// Starts a newcomer, if that was not done, and waits until it says which number it was given; it counts among the schedulers from then on.
    ///
    /// # Panics
    /// When it is not let in.
    pub async fn join(&mut self, mut newcomer: Newcomer) -> (u64, Duration) {
        if !newcomer.member.is_running() {
            self.start_alone(&mut newcomer.member);
        }
        let endpoint = format!("http://{}", newcomer.links.client.address());
        let number = async || {
            let mut client = OperatorClient::connect(endpoint.clone()).await.ok()?;
            let status = client.status(v1::StatusRequest {}).await.ok()?.into_inner();
            Some(status.scheduler)
        };
        let (id, took) = until("the newcomer is a member", JOIN_LIMIT, number).await;
        self.schedulers.insert(id, newcomer.member);
        self.links.insert(id, newcomer.links);
        (id, took)
    }

    /// Counts a scheduler among its own no more; its process, if it runs, is the caller's.
    ///
    /// # Panics
    /// When it is none of them.
    pub fn let_go(&mut self, id: u64) -> Newcomer {
        let member = self.schedulers.remove(&id).expect("a scheduler of this cluster");
        let links = self.links.remove(&id).expect("its relays");
        Newcomer { member, links }
    }

    /// Who votes, as somebody says now.
    pub async fn voters(&self) -> Option<BTreeSet<u64>> {
        let members = self.rows().await?.into_iter();
        let voters = members.filter(|member| member["voter"] == true);
        voters.map(|member| member["id"].as_u64()).collect()
    }

    /// Who is a member, with or without a vote, as somebody says now.
    pub async fn members(&self) -> Option<BTreeSet<u64>> {
        let members = self.rows().await?.into_iter();
        members.map(|member| member["id"].as_u64()).collect()
    }

    async fn rows(&self) -> Option<Vec<Value>> {
        let answer = self.order(&["cluster", "status"]).await.ok()?;
        Some(answer.json["members"].as_array()?.clone())
    }

    /// Has whoever dials this scheduler reach that one of another cluster from now on.
    pub fn divert(&self, id: u64, other: &Self, to: u64) {
        let (ours, theirs) = (&self.links[&id], &other.links[&to]);
        ours.peer.divert(theirs.peer.target());
        ours.client.divert(theirs.client.target());
    }

    /// Makes the data directories of all schedulers from a backup.
    ///
    /// # Panics
    /// When one is not made.
    pub(crate) async fn restore_all(&self, file: &Path) {
        let ids: Vec<u64> = self.schedulers.keys().copied().collect();
        for id in ids {
            let answer = self.restore(id, file).await;
            assert_eq!(answer.code, Some(0), "restore for {id}: {answer}");
        }
    }

    /// Makes the data directory of a scheduler from a backup, with what it is started with.
    ///
    /// # Panics
    /// When the command cannot be started.
    pub async fn restore(&self, id: u64, file: &Path) -> crate::operator::Answer {
        const SAME: [&str; 4] = ["--id", "--initial-cluster", "--cluster-name", "--data-dir"];

        let args = self.schedulers[&id].args();
        let pairs = args.windows(2).filter(|pair| SAME.contains(&pair[0].as_str()));
        let same: Vec<&str> = pairs.flatten().map(String::as_str).collect();
        let path = file.display().to_string();
        let order = [&["cluster", "restore", &path][..], &same].concat();
        self.order(&order).await.expect("the task ends")
    }
}
