//! Making a client.

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;

use crate::actor::Actor;
use crate::changes::Changes;
use crate::core::{ASKS_MAX, Bounds, Router};
use crate::directory::Directory;
use crate::shared::{Readiness, Shared};
use crate::{Client, ConnectError, Settings};

/// Collects what a [`Client`] needs. Start with [`Client::builder`].
///
/// ```no_run
/// use whiskraft_client::{Client, Settings};
///
/// # async fn example() -> Result<(), whiskraft_client::ConnectError> {
/// let client = Client::builder()
///     .endpoint("10.0.0.1:7401")
///     .endpoint("10.0.0.2:7401")
///     .settings(Settings { unfinished_max: 1_000, ..Settings::default() })
///     .connect()
///     .await?;
/// # drop(client);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct ClientBuilder {
    endpoints: Vec<String>,
    cluster_id: Option<String>,
    settings: Settings,
}

impl ClientBuilder {
    /// Adds the client address (`host:port`) of a scheduler. One is enough: the others are learned from it. Name
    /// several, so that one may be down when the client starts.
    #[must_use]
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoints.push(endpoint.into());
        self
    }

    /// Adds several endpoints.
    #[must_use]
    pub fn endpoints(mut self, endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.endpoints.extend(endpoints.into_iter().map(Into::into));
        self
    }

    /// Refuses to work with any other cluster. Without it the first cluster found is the one.
    #[must_use]
    pub fn cluster_id(mut self, cluster_id: impl Into<String>) -> Self {
        self.cluster_id = Some(cluster_id.into());
        self
    }

    /// Replaces the default settings.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Makes the client and waits until it can submit: the members are known and a stream is open.
    ///
    /// # Errors
    /// [`ConnectError`]; nothing keeps running then.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        let (client, mut readiness) = self.start()?;
        let ready = |readiness: &Readiness| {
            readiness.wrong_cluster.is_some() || (readiness.knows_members && readiness.has_stream)
        };
        let deadline = client.shared().settings.connect_deadline;
        let reached = tokio::time::timeout(deadline, readiness.wait_for(ready)).await;
        // The borrow of the channel must end before the client is closed, which writes to it.
        let found = reached
            .ok()
            .and_then(Result::ok)
            .map(|readiness| readiness.wrong_cluster.clone());
        let error = match found {
            Some(None) => return Ok(client),
            Some(Some(found)) => ConnectError::WrongCluster {
                expected: client.cluster_id().unwrap_or_default(),
                found,
            },
            None => ConnectError::NoScheduler {
                waited: deadline,
                endpoints: client.shared().directory.endpoints().to_vec(),
                cause: readiness.borrow().cause.clone(),
            },
        };
        client.close().await;
        Err(error)
    }

    /// Makes the client without waiting for the cluster: for services that may start before it. Invocations wait
    /// for a scheduler until their deadlines. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// [`ConnectError::NoEndpoint`], [`ConnectError::BadEndpoint`].
    pub fn connect_lazy(self) -> Result<Client, ConnectError> {
        Ok(self.start()?.0)
    }

    fn start(self) -> Result<(Client, watch::Receiver<Readiness>), ConnectError> {
        let directory = Arc::new(Directory::new(self.settings.clone(), self.endpoints)?);
        let bounds = Bounds {
            unfinished_max: self.settings.unfinished_max,
            unfinished_bytes_max: self.settings.unfinished_bytes_max,
            asks_max: ASKS_MAX,
        };
        let router = Router::new(bounds, StdRng::from_os_rng());
        let (changes, handle) = Changes::new(Arc::clone(&directory), self.settings.call_deadline / 2);
        // Ends with the last handle, which everybody shares who may ask.
        tokio::spawn(changes.run());
        let shared = Arc::new(Shared::new(self.settings, directory, handle, self.cluster_id));
        let (actor, readiness) = Actor::start(Arc::clone(&shared), router, rand::random());
        Ok((Client::new(shared, actor), readiness))
    }
}
