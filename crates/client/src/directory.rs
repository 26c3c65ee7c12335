//! Which schedulers there are, which of them are connected, and the channels to them.
//!
//! Written by the actor, read by everyone who asks a question. Channels are lazy and reconnect by themselves.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use tonic::transport::{Channel, Endpoint};
use whiskraft_proto::transport::{connect_lazily, controller_endpoint};
use whiskraft_types::SchedulerId;

use crate::{ConnectError, Settings};

/// Traffic that must not delay each other gets connections of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Activations, questions, the watch of the SDK itself.
    Quick,
    /// Watches of whoever uses the SDK: those that are not read fill their connection.
    Watch,
    /// Documents and code.
    Bulk,
}

/// Where this client watches.
#[derive(Debug, Default)]
struct Watched {
    /// Where the next watch begins, too.
    at: Option<String>,
    /// Where the last one failed.
    failed: Option<String>,
}

/// Somebody who can be asked.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    /// `None` for an endpoint whose number is not known.
    pub(crate) scheduler: Option<SchedulerId>,
    pub(crate) address: String,
}

#[derive(Debug)]
struct Known {
    address: String,
    connected: bool,
}

/// The schedulers as this client sees them.
#[derive(Debug)]
pub(crate) struct Directory {
    settings: Settings,
    /// What the caller named; asked while no member is known, and when none answers.
    endpoints: Vec<String>,
    members: RwLock<BTreeMap<SchedulerId, Known>>,
    channels: Mutex<BTreeMap<(String, Class), Channel>>,
    /// Spreads questions over the schedulers; begins anywhere, so that clients which ask once do not all ask the same one.
    turn: AtomicUsize,
    /// Where this client's watches are. All at one: what a change makes a scheduler tell several watches of a client is written,
    /// sent and read once.
    watched: Mutex<Watched>,
    /// Who writes into the log of the cluster, as somebody has said; 0: not known.
    log_leader: AtomicU64,
}

impl Directory {
    /// # Errors
    /// An endpoint that is not an address, or none at all.
    pub(crate) fn new(settings: Settings, endpoints: Vec<String>) -> Result<Self, ConnectError> {
        if endpoints.is_empty() {
            return Err(ConnectError::NoEndpoint);
        }
        let endpoints: Vec<_> = endpoints
            .iter()
            .map(|text| bare_address(text).to_owned())
            .collect();
        for endpoint in &endpoints {
            check_address(endpoint)?;
        }
        Ok(Self {
            settings,
            endpoints,
            members: RwLock::default(),
            channels: Mutex::default(),
            turn: AtomicUsize::new(usize::from(rand::random::<u16>())),
            watched: Mutex::default(),
            log_leader: AtomicU64::new(0),
        })
    }

    pub(crate) fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    pub(crate) fn add(&self, scheduler: SchedulerId, address: String) {
        self.write().insert(
            scheduler,
            Known {
                address,
                connected: false,
            },
        );
    }

    pub(crate) fn remove(&self, scheduler: SchedulerId) {
        let Some(known) = self.write().remove(&scheduler) else {
            return;
        };
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.remove(&(known.address.clone(), Class::Quick));
        channels.remove(&(known.address.clone(), Class::Watch));
        channels.remove(&(known.address, Class::Bulk));
    }

    pub(crate) fn set_connected(&self, scheduler: SchedulerId, connected: bool) {
        if let Some(known) = self.write().get_mut(&scheduler) {
            known.connected = connected;
        }
    }

    pub(crate) fn members(&self) -> Vec<(SchedulerId, String)> {
        self.read()
            .iter()
            .map(|(scheduler, known)| (*scheduler, known.address.clone()))
            .collect()
    }

    pub(crate) fn address(&self, scheduler: SchedulerId) -> Option<String> {
        self.read().get(&scheduler).map(|known| known.address.clone())
    }

    /// Everybody who can be asked, best first: connected members, other members, endpoints that are neither.
    pub(crate) fn candidates(&self) -> Vec<Candidate> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let members = self.read();
        let of = |connected: bool| {
            let part: Vec<_> = members
                .iter()
                .filter(|(_, known)| known.connected == connected)
                .map(|(id, known)| Candidate {
                    scheduler: Some(*id),
                    address: known.address.clone(),
                })
                .collect();
            rotated(part, turn)
        };
        let unknown = self
            .endpoints
            .iter()
            .filter(|endpoint| members.values().all(|known| known.address != **endpoint))
            .map(|endpoint| Candidate {
                scheduler: None,
                address: endpoint.clone(),
            })
            .collect();
        let mut all = of(true);
        all.extend(of(false));
        all.extend(rotated(unknown, turn));
        all
    }

    /// Where to watch: at the scheduler that this client's other watches are at, as long as it is as good as any.
    pub(crate) fn to_watch(&self) -> Option<String> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = watched.at.take().filter(|address| self.is_best(address));
        watched.at = kept.or_else(|| {
            let candidates = self.candidates();
            let has_failed = |one: &Candidate| Some(&one.address) == watched.failed.as_ref();
            let mut others = candidates
                .iter()
                .filter(|one| !has_failed(one) && self.is_best(&one.address));
            let first = others.next().or(candidates.first());
            first.map(|candidate| candidate.address.clone())
        });
        watched.at.clone()
    }

    /// A watch at this address broke or never began: the next one that begins does so elsewhere, if it can.
    pub(crate) fn watch_failed(&self, address: &str) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if watched.at.take_if(|at| at == address).is_some() {
            watched.failed = Some(address.to_owned());
        }
    }

    /// Whether it is a connected member, or nobody is one.
    fn is_best(&self, address: &str) -> bool {
        let members = self.read();
        let mut connected = members.values().filter(|known| known.connected).peekable();
        connected.peek().is_none() || connected.any(|known| known.address == address)
    }

    /// Notes who writes into the log of the cluster, as a scheduler has just said; 0 says nothing.
    pub(crate) fn note_log_leader(&self, leader: u64) {
        if leader != 0 {
            self.log_leader.store(leader, Ordering::Relaxed);
        }
    }

    /// Notes that somebody did not do what was asked: if it was thought to write into the log, others are as good.
    pub(crate) fn note_failed(&self, candidate: &Candidate) {
        if let Some(SchedulerId(id)) = candidate.scheduler {
            let order = Ordering::Relaxed;
            // Another one was noted meanwhile: that is newer.
            let _ = self.log_leader.compare_exchange(id, 0, order, order);
        }
    }

    pub(crate) fn is_connected(&self, candidate: &Candidate) -> bool {
        let members = self.read();
        let known = candidate.scheduler.and_then(|scheduler| members.get(&scheduler));
        known.is_some_and(|known| known.connected)
    }

    /// Everybody who can be asked for a write, best first: who writes into the log, if it is known and connected; it need
    /// not hand anything on.
    pub(crate) fn writers(&self) -> Vec<Candidate> {
        let mut all = self.candidates();
        let leader = SchedulerId(self.log_leader.load(Ordering::Relaxed));
        let is_connected = self.read().get(&leader).is_some_and(|known| known.connected);
        let at = all
            .iter()
            .position(|candidate| candidate.scheduler == Some(leader));
        if let Some(at) = at.filter(|_| is_connected) {
            all[..=at].rotate_right(1);
        }
        all
    }

    /// The lazy channel to an address.
    ///
    /// # Errors
    /// Says why the address cannot be one.
    pub(crate) fn channel(&self, address: &str, class: Class) -> Result<Channel, ConnectError> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(&(address.to_owned(), class)) {
            return Ok(channel.clone());
        }
        let endpoint = controller_endpoint(check_address(address)?, self.settings.patience());
        let channel = connect_lazily(&endpoint);
        channels.insert((address.to_owned(), class), channel.clone());
        Ok(channel)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<SchedulerId, Known>> {
        self.members.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<SchedulerId, Known>> {
        self.members.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bare_address(text: &str) -> &str {
    text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/')
}

fn check_address(address: &str) -> Result<Endpoint, ConnectError> {
    let bad = |reason: String| ConnectError::BadEndpoint {
        endpoint: address.to_owned(),
        reason,
    };
    let port = address
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse::<u16>().ok());
    if port.is_none() {
        return Err(bad("it must end in a port number".to_owned()));
    }
    Endpoint::from_shared(format!("http://{address}")).map_err(|error| bad(error.to_string()))
}

fn rotated(mut candidates: Vec<Candidate>, turn: usize) -> Vec<Candidate> {
    if !candidates.is_empty() {
        let by = turn % candidates.len();
        candidates.rotate_left(by);
    }
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(endpoints: &[&str]) -> Result<Directory, ConnectError> {
        Directory::new(
            Settings::default(),
            endpoints.iter().map(|text| (*text).to_owned()).collect(),
        )
    }

    fn addresses(directory: &Directory) -> Vec<String> {
        directory
            .candidates()
            .into_iter()
            .map(|candidate| candidate.address)
            .collect()
    }

    #[test]
    fn connected_members_come_first_and_take_turns() {
        let directory = directory(&["h:1", "http://h:9/"]).unwrap();
        for id in 1..=3 {
            directory.add(SchedulerId(id), format!("h:{id}"));
        }
        directory.set_connected(SchedulerId(2), true);
        directory.set_connected(SchedulerId(3), true);
        let (first, second) = (addresses(&directory), addresses(&directory));
        assert_eq!(first[2..], ["h:1", "h:9"]);
        assert_ne!(first[0], second[0]);
        assert!(first[..2].contains(&"h:2".to_owned()) && first[..2].contains(&"h:3".to_owned()));
        directory.remove(SchedulerId(2));
        assert_eq!(addresses(&directory), ["h:3", "h:1", "h:9"]);
    }

    #[test]
    fn watches_stay_together_until_one_breaks() {
        let directory = directory(&["h:9"]).unwrap();
        let watched = || directory.to_watch().unwrap();
        assert_eq!(watched(), "h:9");
        for id in 1..=3 {
            directory.add(SchedulerId(id), format!("h:{id}"));
        }
        assert_eq!(watched(), "h:9", "nobody is connected, so it may as well stay");
        directory.set_connected(SchedulerId(1), true);
        directory.set_connected(SchedulerId(2), true);
        let first = watched();
        assert!(["h:1", "h:2"].contains(&first.as_str()), "{first}");
        for _ in 0..5 {
            assert_eq!(watched(), first);
        }
        directory.watch_failed("h:3");
        assert_eq!(watched(), first, "that was another one");
        // Broken, and asked again at once: not there, as long as there are others.
        directory.watch_failed(&first);
        let second = watched();
        assert_ne!(second, first);
        for _ in 0..4 {
            directory.watch_failed(&watched());
            let before = watched();
            addresses(&directory);
            directory.watch_failed(&before);
            assert_ne!(watched(), before, "whoever else has asked meanwhile");
        }
        let second = watched();
        let first = if second == "h:1" { "h:2" } else { "h:1" };
        assert_eq!(watched(), second);
        let id = second.strip_prefix("h:").unwrap().parse().unwrap();
        directory.set_connected(SchedulerId(id), false);
        assert_eq!(watched(), first, "the only one that is connected");
    }

    #[test]
    fn writes_go_to_who_writes_the_log_while_it_is_connected_and_answers() {
        let directory = directory(&["h:1"]).unwrap();
        for id in 1..=3 {
            directory.add(SchedulerId(id), format!("h:{id}"));
            directory.set_connected(SchedulerId(id), true);
        }
        let first = || directory.writers()[0].clone();
        directory.note_log_leader(2);
        directory.note_log_leader(0);
        assert!((0..3).all(|_| first().address == "h:2"));
        assert_eq!(directory.writers().len(), 3);
        directory.set_connected(SchedulerId(2), false);
        assert!((0..3).all(|_| first().address != "h:2"));
        directory.set_connected(SchedulerId(2), true);
        let failed = first();
        directory.note_log_leader(3);
        directory.note_failed(&failed);
        assert!((0..3).all(|_| first().address == "h:3"));
        directory.note_failed(&first());
        let all: Vec<_> = (0..3).map(|_| first().address).collect();
        assert!(all.iter().any(|address| address != "h:3"));
    }

    #[test]
    fn bad_endpoints_are_named() {
        assert_eq!(directory(&[]).unwrap_err(), ConnectError::NoEndpoint);
        for bad in ["", "host", "host:port", "a b:1"] {
            assert!(
                matches!(directory(&[bad]).unwrap_err(), ConnectError::BadEndpoint { .. }),
                "{bad:?}"
            );
        }
    }
}
