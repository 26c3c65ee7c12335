//! Code of actions: fetched from any scheduler, checked against its hash, kept in a bounded memory cache.
//!
//! One fetch per hash at a time; whoever else wants it waits for that one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use tokio::sync::{OnceCell, watch};
use whiskraft_proto::v1;
use whiskraft_proto::v1::documents_client::DocumentsClient;
use whiskraft_types::{ByteSize, CreationError};

use crate::backoff::Backoff;
use crate::clock;
use crate::config::LinkConfig;
use crate::session::connect_streams;
use crate::words::CodeHash;

/// Rounds over all schedulers before a fetch is given up; the creation can be tried on another invoker.
const ROUNDS_MAX: usize = 5;
/// Longest code; OpenWhisk allows 48 MiB.
const CODE_LEN_MAX: u64 = 64 << 20;
/// Longest wait for one fetch from one scheduler.
const FETCH_WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(20);

/// Why code is not here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct FetchError {
    pub(crate) error: CreationError,
    pub(crate) message: String,
}

#[derive(Debug)]
struct Entry {
    cell: Arc<OnceCell<Bytes>>,
    used: u64,
    len: u64,
}

#[derive(Debug, Default)]
struct Entries {
    by_hash: BTreeMap<CodeHash, Entry>,
    bytes: u64,
    uses: u64,
}

/// The cache.
#[derive(Debug)]
pub(crate) struct CodeCache {
    entries: Mutex<Entries>,
    bytes_max: u64,
    addresses: watch::Receiver<Vec<String>>,
    link: LinkConfig,
}

impl CodeCache {
    pub(crate) fn new(
        bytes_max: ByteSize,
        addresses: watch::Receiver<Vec<String>>,
        link: LinkConfig,
    ) -> Self {
        Self {
            entries: Mutex::default(),
            bytes_max: bytes_max.as_bytes(),
            addresses,
            link,
        }
    }

    /// The code with this hash.
    ///
    /// # Errors
    /// [`CreationError::Fetch`] if no scheduler has it or what they have does not match, a retryable kind if none
    /// could be reached.
    pub(crate) async fn find(&self, hash: CodeHash) -> Result<Bytes, FetchError> {
        let cell = self.cell(hash);
        let code = cell.get_or_try_init(|| self.fetch(hash)).await.cloned();
        match &code {
            Ok(code) => self.keep(hash, code.len() as u64),
            Err(_) => self.forget_empty(hash),
        }
        code
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cell(&self, hash: CodeHash) -> Arc<OnceCell<Bytes>> {
        let mut entries = self.lock();
        entries.uses += 1;
        let used = entries.uses;
        let entry = entries.by_hash.entry(hash).or_insert_with(|| Entry {
            cell: Arc::default(),
            used,
            len: 0,
        });
        entry.used = used;
        Arc::clone(&entry.cell)
    }

    /// Counts a fetched blob and lets the least recently used ones go until the bound holds.
    fn keep(&self, hash: CodeHash, len: u64) {
        let entries = &mut *self.lock();
        if let Some(entry) = entries.by_hash.get_mut(&hash)
            && entry.len == 0
        {
            entry.len = len;
            entries.bytes += len;
        }
        while entries.bytes > self.bytes_max {
            let fetched = entries.by_hash.iter().filter(|(_, entry)| entry.len > 0);
            let Some(oldest) = fetched.min_by_key(|(_, entry)| entry.used).map(|(hash, _)| *hash) else {
                return;
            };
            if let Some(entry) = entries.by_hash.remove(&oldest) {
                entries.bytes -= entry.len;
            }
        }
    }

    fn forget_empty(&self, hash: CodeHash) {
        let mut entries = self.lock();
        // Somebody else may wait for the same cell and fetch again: only the last one out removes it.
        let unused = |entry: &Entry| entry.len == 0 && Arc::strong_count(&entry.cell) <= 2;
        if entries.by_hash.get(&hash).is_some_and(unused) {
            entries.by_hash.remove(&hash);
        }
    }

    async fn fetch(&self, hash: CodeHash) -> Result<Bytes, FetchError> {
        let mut backoff = Backoff::new(&self.link);
        let mut last = FetchError {
            error: CreationError::Whisk,
            message: "no scheduler is known".to_owned(),
        };
        let addresses = self.addresses.borrow().clone();
        let first = clock::below(addresses.len());
        for _ in 0..ROUNDS_MAX {
            for step in 0..addresses.len() {
                let address = &addresses[(first + step) % addresses.len()];
                let fetched = tokio::time::timeout(FETCH_WAIT_MAX, self.fetch_from(address, hash)).await;
                match fetched {
                    Ok(Ok(code)) => return Ok(code),
                    Ok(Err(error)) => last = error,
                    Err(_) => last = platform(format!("no code from {address} within {FETCH_WAIT_MAX:?}")),
                }
                tracing::debug!(address, error = %last, "code not fetched");
            }
            backoff.wait().await;
        }
        Err(last)
    }

    async fn fetch_from(&self, address: &str, hash: CodeHash) -> Result<Bytes, FetchError> {
        let channel = connect_streams(address, &self.link)
            .await
            .map_err(|error| platform(format!("fetching code from {address}: {error:?}")))?;
        let request = v1::GetBlobRequest {
            sha256: hash.to_vec().into(),
        };
        let status = |status: tonic::Status| match status.code() {
            tonic::Code::NotFound => missing(format!(
                "the code of the action does not exist: {}",
                status.message()
            )),
            _ => platform(format!("fetching code from {address}: {status}")),
        };
        let mut chunks = DocumentsClient::new(channel)
            .get_blob(request)
            .await
            .map_err(status)?
            .into_inner();
        let mut code = BytesMut::new();
        while let Some(chunk) = chunks.message().await.map_err(status)? {
            code.extend_from_slice(&chunk.data);
            if code.len() as u64 > CODE_LEN_MAX {
                return Err(missing(format!("the code is longer than {CODE_LEN_MAX} bytes")));
            }
        }
        let found: CodeHash = Sha256::digest(&code).into();
        if found != hash {
            return Err(missing(format!(
                "the code from {address} does not match its hash"
            )));
        }
        Ok(code.freeze())
    }
}

fn platform(message: String) -> FetchError {
    FetchError {
        error: CreationError::Whisk,
        message,
    }
}

fn missing(message: String) -> FetchError {
    FetchError {
        error: CreationError::Fetch,
        message,
    }
}
