//! The handle everybody uses.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError};

use tokio::sync::oneshot;
use whiskraft_types::{
    ActionName, ActivationId, LogRevision, NamespaceName, QueueKey, Rejection, SchedulerId,
};

use crate::core::{Context, NewActivation};
use crate::handle::{ActorHandle, Waiter};
use crate::invocation::Outcome;
use crate::shared::Shared;
use crate::wait::Wait;
use crate::watch::{Table, WatchStream, subscribe};
use crate::{
    ActivationRecord, CallError, ClientBuilder, ConnectError, Invocation, InvokeError, InvokeOptions,
    Payload, Stats,
};

/// A client of one cluster. Cheap to clone; clones share streams, caches and bounds.
///
/// Must be made and used within a Tokio runtime. When the last clone and the last [`Invocation`] are dropped, its
/// tasks end.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
    actor: ActorHandle,
}

impl Client {
    pub(crate) const fn new(shared: Arc<Shared>, actor: ActorHandle) -> Self {
        Self { shared, actor }
    }

    pub(crate) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Starts a client with its own settings.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Connects with default settings to the cluster of these endpoints (`host:port` of schedulers' client
    /// listeners).
    ///
    /// # Errors
    /// [`ConnectError`]; nothing keeps running then.
    pub async fn connect(
        endpoints: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Self, ConnectError> {
        Self::builder().endpoints(endpoints).connect().await
    }

    /// Runs an action and waits for its record.
    ///
    /// The record tells how the *action* ended; an action that fails is `Ok` with another
    /// [`status`](ActivationRecord::status). At `options.deadline` the call ends with [`InvokeError::Deadline`] and
    /// the activation goes on; dropping the future does not cancel it either. Lost schedulers and changes of leader
    /// are handled in here: the activation is sent again under the same id and does not start twice.
    ///
    /// ```no_run
    /// # async fn example(client: whiskraft_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use whiskraft_client::InvokeOptions;
    ///
    /// let arguments = serde_json::json!({"name": "Ada"});
    /// let record = client
    ///     .invoke(&"guest".parse()?, &"guest/hello".parse()?, arguments, InvokeOptions::default())
    ///     .await?;
    /// println!("{}: {}", record.id, String::from_utf8_lossy(&record.result));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`InvokeError`] for what each variant means for the caller.
    pub async fn invoke(
        &self,
        namespace: &NamespaceName,
        action: &ActionName,
        payload: impl Into<Payload>,
        options: InvokeOptions,
    ) -> Result<ActivationRecord, InvokeError> {
        let wait = Wait::new(&options);
        let activation = self.activation(namespace, action, payload.into(), options, true)?;
        let id = activation.id;
        let (outcome, waiting) = oneshot::channel::<Outcome>();
        self.actor.submit(activation, Waiter::of_call(outcome)).await?;
        wait.until(id, waiting).await
    }

    /// Draws an id for an activation, for a caller who wants to know it before the call ends; see
    /// [`InvokeOptions::id`].
    #[must_use]
    pub fn draw_id() -> ActivationId {
        ActivationId::from_bytes(rand::random())
    }

    /// Starts an action and returns as soon as a scheduler has accepted it: by default, as soon as it is on the disks of
    /// a majority of the schedulers, so that it runs whatever becomes of this process.
    ///
    /// What is accepted can be waited for through the [`Invocation`], or asked for later, from anywhere, with
    /// [`result`](Self::result). Whoever drops the handle of a durable one keeps nothing of it here.
    ///
    /// ```no_run
    /// # async fn example(client: whiskraft_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use whiskraft_client::InvokeOptions;
    ///
    /// let (guest, bill) = ("guest".parse()?, "guest/bill".parse()?);
    /// // Sent twice by a caller that heard no answer, it runs once.
    /// let options = InvokeOptions { idempotency_key: Some("order-7".to_owned()), ..InvokeOptions::default() };
    /// let id = client.submit(&guest, &bill, r#"{"order": 7}"#, options).await?.id();
    /// println!("{:?}", client.result(&guest, id, Duration::from_secs(30)).await?.status);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`InvokeError`]; [`InvokeError::NotConfirmed`], and [`InvokeError::Deadline`] for one that is not durable, mean
    /// that nobody confirmed it within `options.deadline` and that it may run all the same.
    pub async fn submit(
        &self,
        namespace: &NamespaceName,
        action: &ActionName,
        payload: impl Into<Payload>,
        options: InvokeOptions,
    ) -> Result<Invocation, InvokeError> {
        let wait = Wait::new(&options);
        let activation = self.activation(namespace, action, payload.into(), options, false)?;
        let (id, durable) = (activation.id, activation.durable);
        let (accepted, confirmation) = oneshot::channel();
        let (outcome, waiting) = oneshot::channel();
        let attempts = Arc::new(AtomicU32::new(0));
        let waiter = Waiter::of_submission(accepted, outcome, Arc::clone(&attempts));
        self.actor.submit(activation, waiter).await?;
        wait.until(id, confirmation).await?;
        Ok(Invocation::new(
            id,
            attempts,
            durable,
            waiting,
            self.actor.clone(),
        ))
    }

    fn activation(
        &self,
        namespace: &NamespaceName,
        action: &ActionName,
        payload: Payload,
        options: InvokeOptions,
        blocking: bool,
    ) -> Result<NewActivation, InvokeError> {
        let payload = payload.into_text(self.shared.payload_len_max.load(Ordering::Relaxed))?;
        let key = QueueKey {
            namespace: namespace.clone(),
            action: action.clone(),
        };
        let terms = options.terms(&key, blocking, self.shared.clock.wall())?;
        let id = terms.id;
        // One that may have run has to be asked for, whatever new ones are told.
        if self.shared.settings.refuse_early && !options.may_have_run && options.idempotency_key.is_none() {
            self.refuse_early(id, &key)?;
        }
        Ok(NewActivation {
            id,
            key,
            payload,
            blocking,
            may_have_run: options.may_have_run,
            durable: terms.durable,
            keyed: options.idempotency_key.is_some(),
            not_before_ms: terms.not_before_ms,
            deadline: options.deadline,
            given_up_after: self
                .shared
                .settings
                .giving_up
                .after(options.time_limit)
                .saturating_add(terms.delay),
            context: Context {
                transaction: options.transaction,
                subject: options.subject,
                api_key: options.api_key,
                cause: options.cause.map(|id| id.to_string()).unwrap_or_default(),
                caller: options.caller,
            },
        })
    }

    fn refuse_early(&self, id: ActivationId, key: &QueueKey) -> Result<(), InvokeError> {
        let Some(throttle) = self.throttle(key) else {
            return Ok(());
        };
        Err(InvokeError::Rejected {
            id,
            attempts: 0,
            may_have_run: false,
            rejection: Rejection::Throttled {
                scope: throttle.scope,
                limit: throttle.limit,
                retry_after: throttle.retry_after,
            },
        })
    }

    /// Watches tables of the cluster: a snapshot first, or the changes after a log revision seen before.
    ///
    /// # Errors
    /// [`CallError::Unreachable`] if no scheduler takes the subscription. Later losses are handled in here.
    pub async fn watch(
        &self,
        tables: &[Table],
        after: Option<LogRevision>,
    ) -> Result<WatchStream, CallError> {
        const OPERATION: &str = "watch";
        if tables.is_empty() {
            let reason = "name at least one table".to_owned();
            return Err(CallError::BadAnswer {
                operation: OPERATION,
                reason,
            });
        }
        let mut subscription = subscribe(&self.shared, tables, after);
        let started = self.shared.clock.now();
        let deadline = started + self.shared.settings.call_deadline;
        let mut backoff = crate::backoff::Backoff::default();
        let mut tries = 0;
        loop {
            tries += 1;
            let Err(cause) = subscription.open().await else {
                return Ok(WatchStream::start(subscription));
            };
            let pause = backoff.next();
            if self.shared.clock.left(deadline) <= pause {
                let waited = self.shared.clock.now().saturating_since(started);
                return Err(CallError::Unreachable {
                    operation: OPERATION,
                    waited,
                    tries,
                    cause,
                });
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// The schedulers known now, with their client addresses.
    #[must_use]
    pub fn members(&self) -> Vec<(SchedulerId, String)> {
        self.shared.directory.members()
    }

    /// The cluster this client works with: the one it was told, or the first one found.
    #[must_use]
    pub fn cluster_id(&self) -> Option<String> {
        self.shared.cluster_id()
    }

    /// What this client has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes all streams. Unfinished activations go on in the cluster and end here with [`InvokeError::Closed`];
    /// so does everything that clones of this client try later.
    pub async fn close(&self) {
        self.actor.close().await;
    }
}
