//! Asks the rate homes of namespaces for tokens, one ask per namespace at a time, and answers the asks of others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use whiskraft_proto::transport::connect_lazily;
use whiskraft_proto::v1::TakeRateRequest;
use whiskraft_proto::v1::operator_client::OperatorClient;
use whiskraft_queue::Taken;
use whiskraft_state::State;
use whiskraft_types::{Instant, NamespaceName, SchedulerId};

use crate::context::Context;
use crate::message::Request;
use crate::rate::homes::Buckets;
use crate::rate::stock::{Answer, Stock};
use crate::shard::ShardsHandle;

/// Stocks that wait to be asked for; one that finds no room is asked for with its next activation.
const ASKS_MAX: usize = 1024;
/// Asks on their way at a time.
const ASKS_UNDER_WAY_MAX: usize = 256;
/// Asks one after the other before those that wait hear of the answers.
const ROUNDS_MAX: usize = 8;
/// Longest wait for a home; after it this scheduler takes from its own share.
const ANSWER_WAIT_MAX: Duration = Duration::from_millis(250);
/// Time for which a home that did not answer is not asked again: activations must not wait for it one after the other.
const SILENCE_PAUSE: Duration = Duration::from_millis(500);

/// The near end; a cheap copy.
#[derive(Debug, Clone)]
pub(crate) struct RateHandle {
    context: Context,
    asks: mpsc::Sender<Arc<Stock>>,
    stocks: Arc<Mutex<BTreeMap<NamespaceName, Weak<Stock>>>>,
    homes: Arc<Buckets>,
}

impl RateHandle {
    /// The stock of a namespace under its limit of now, one for all shards; `None` without a limit.
    pub(crate) fn stock(&self, namespace: &NamespaceName, per_minute: Option<u32>) -> Option<Arc<Stock>> {
        let per_minute = per_minute?;
        let mut stocks = self.stocks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stock) = stocks.get(namespace).and_then(Weak::upgrade) {
            stock.set_rate(per_minute);
            return Some(stock);
        }
        stocks.retain(|_, stock| stock.strong_count() > 0);
        let stock = Arc::new(Stock::new(namespace.clone(), per_minute));
        stocks.insert(namespace.clone(), Arc::downgrade(&stock));
        Some(stock)
    }

    /// Asks for tokens unless that is under way.
    pub(crate) fn ask(&self, stock: &Arc<Stock>) {
        pass_on(&self.asks, stock);
    }

    /// The answer to another scheduler that takes this one for the home of a namespace.
    ///
    /// # Errors
    /// If this scheduler may not act, or is not the home by its tables.
    pub(crate) fn grant(&self, namespace: &NamespaceName, wanted: u32) -> Result<Answer, Status> {
        let now = self.context.clock.now();
        if !self.context.fence.allows(now) {
            return Err(Status::unavailable(
                "this scheduler has lost touch with the others",
            ));
        }
        let node = &self.context.node;
        let (home, per_minute) = node.read(|state| {
            let limits = state.namespace_limits(namespace);
            (state.rate_home(namespace), limits.invocations_per_minute)
        });
        if home != Some(node.id()) {
            return Err(Status::failed_precondition(
                "another scheduler counts for this namespace",
            ));
        }
        // Without a limit by our tables the asker is about to hear the same.
        let unlimited = Taken {
            granted: wanted,
            retry_after: Duration::ZERO,
        };
        let taken = per_minute.map_or(unlimited, |per_minute| {
            self.homes.take(now, namespace, per_minute, wanted)
        });
        Ok(Answer { taken, per_minute })
    }

    /// A namespace has lost its limit: what it used under it counts for none that follows.
    pub(crate) fn forget(&self, namespace: &NamespaceName) {
        let limits = self.context.node.read(|state| state.namespace_limits(namespace));
        // It may have another by now, under which something was used.
        if limits.invocations_per_minute.is_none() {
            self.homes.forget(namespace);
        }
    }
}

/// Puts a stock among those to be asked for, unless it is there or is asked for.
fn pass_on(asks: &mpsc::Sender<Arc<Stock>>, stock: &Arc<Stock>) {
    if stock.begin_ask() && asks.try_send(Arc::clone(stock)).is_err() {
        stock.abandon_ask();
    }
}

/// Asks.
pub(crate) struct RateActor {
    asker: Asker,
    asks: mpsc::Receiver<Arc<Stock>>,
}

impl RateActor {
    pub(crate) fn channel(context: Context) -> (RateHandle, mpsc::Receiver<Arc<Stock>>) {
        let (sender, asks) = mpsc::channel(ASKS_MAX);
        let handle = RateHandle {
            context,
            asks: sender,
            stocks: Arc::default(),
            homes: Arc::default(),
        };
        (handle, asks)
    }

    pub(crate) fn new(handle: RateHandle, shards: ShardsHandle, asks: mpsc::Receiver<Arc<Stock>>) -> Self {
        let asker = Asker {
            context: handle.context.clone(),
            handle,
            shards,
            peers: Mutex::default(),
            shares: Buckets::default(),
        };
        Self { asker, asks }
    }

    /// Runs until the process stops.
    pub(crate) async fn run(mut self) {
        let context = self.asker.context.clone();
        tokio::select! {
            () = context.stopping() => {}
            () = self.serve() => {}
        }
    }

    async fn serve(&mut self) {
        let asker = &self.asker;
        let mut under_way = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(()) = under_way.next(), if !under_way.is_empty() => {}
                stock = self.asks.recv(), if under_way.len() < ASKS_UNDER_WAY_MAX => match stock {
                    Some(stock) => under_way.push(asker.fill(stock)),
                    None => return,
                },
            }
        }
    }
}

/// A scheduler that is asked.
#[derive(Debug)]
struct Peer {
    channel: Channel,
    silent_until: Instant,
}

struct Asker {
    context: Context,
    handle: RateHandle,
    shards: ShardsHandle,
    /// By address; of members that came and went few remain, as there are few members.
    peers: Mutex<BTreeMap<String, Peer>>,
    /// What this scheduler takes while the home does not answer.
    shares: Buckets,
}

impl Asker {
    async fn fill(&self, stock: Arc<Stock>) {
        loop {
            let mut is_awaited = false;
            // Who comes meanwhile is asked for before anybody goes on, so that nobody is asked for twice.
            for _ in 0..ROUNDS_MAX {
                is_awaited |= self.ask_once(&stock).await;
                if !stock.is_missed() {
                    break;
                }
            }
            if is_awaited {
                let namespace = stock.namespace();
                let settled = || Request::RateSettled {
                    namespace: namespace.clone(),
                };
                self.shards.send_all(settled).await;
            }
            if !stock.end_ask() {
                return;
            }
        }
    }

    /// Whether activations wait for the answer.
    async fn ask_once(&self, stock: &Stock) -> bool {
        let (wanted, missed) = stock.wanted();
        if wanted > 0 {
            let answer = self.take(stock, wanted).await;
            stock.settle(self.context.clock.now(), wanted, answer);
        }
        missed > 0
    }

    async fn take(&self, stock: &Stock, wanted: u32) -> Answer {
        let (namespace, per_minute) = (stock.namespace(), stock.per_minute());
        let node = &self.context.node;
        let (home, live) = node.read(|state| (home(state, namespace), state.live_schedulers().count()));
        let answer = match home {
            Some((id, _)) if id == node.id() => self.handle.grant(namespace, wanted).ok(),
            Some((_, address)) => self.ask(&address, namespace, wanted).await,
            None => None,
        };
        answer.unwrap_or_else(|| {
            let live = u32::try_from(live).unwrap_or(u32::MAX).max(1);
            let (now, share) = (self.context.clock.now(), per_minute.div_ceil(live));
            Answer {
                taken: self.shares.take(now, namespace, share, wanted),
                per_minute: Some(per_minute),
            }
        })
    }

    async fn ask(&self, address: &str, namespace: &NamespaceName, wanted: u32) -> Option<Answer> {
        let request = TakeRateRequest {
            namespace: namespace.to_string(),
            wanted,
        };
        let mut client = OperatorClient::new(self.channel(address)?);
        match tokio::time::timeout(ANSWER_WAIT_MAX, client.take_rate(request)).await {
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                let taken = Taken {
                    granted: answer.granted.min(wanted),
                    retry_after: Duration::from_millis(answer.retry_after_ms.into()),
                };
                Some(Answer {
                    taken,
                    per_minute: answer.per_minute,
                })
            }
            Ok(Err(status)) if status.code() == tonic::Code::FailedPrecondition => None,
            Ok(Err(_)) | Err(_) => {
                tracing::debug!(address, %namespace, "rate home does not answer, own share is used");
                self.silence(address);
                None
            }
        }
    }

    /// `None` if it did not answer a moment ago, or has no address that can be.
    fn channel(&self, address: &str) -> Option<Channel> {
        let now = self.context.clock.now();
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = peers.get(address) {
            return (peer.silent_until <= now).then(|| peer.channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
        let channel = connect_lazily(&endpoint.connect_timeout(ANSWER_WAIT_MAX));
        let peer = Peer {
            channel: channel.clone(),
            silent_until: now,
        };
        peers.insert(address.to_owned(), peer);
        Some(channel)
    }

    fn silence(&self, address: &str) {
        let until = self.context.clock.now() + SILENCE_PAUSE;
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = peers.get_mut(address) {
            peer.silent_until = until;
        }
    }
}

/// The home of a namespace and where it is reached.
fn home(state: &State, namespace: &NamespaceName) -> Option<(SchedulerId, String)> {
    let id = state.rate_home(namespace)?;
    Some((id, state.member(id)?.client_address.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stock_that_found_no_room_is_asked_for_with_its_next_activation() {
        let stock = || Arc::new(Stock::new("guest".parse().unwrap(), 60));
        let (asks, mut waiting) = mpsc::channel(1);
        pass_on(&asks, &stock());
        let late = stock();
        late.note_missed();
        pass_on(&asks, &late);
        assert!(waiting.try_recv().is_ok_and(|other| !Arc::ptr_eq(&other, &late)));
        assert!(waiting.try_recv().is_err());
        late.note_missed();
        pass_on(&asks, &late);
        assert!(waiting.try_recv().is_ok_and(|asked| Arc::ptr_eq(&asked, &late)));
    }
}
