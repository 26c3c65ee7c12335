//! Accepts the connections of peers, each on the runtime that its messages are for.
//!
//! A connection for the lanes says so in its first bytes, before it speaks HTTP/2. So what is for a lane is read, decided on
//! and answered by one thread, and does not pass through that of group 0.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

/// What a connection for the lanes begins with. HTTP/2 begins with `PRI`.
const LANES: [u8; 4] = *b"WKL1";
/// Longest wait for the first bytes of a connection.
const FIRST_WAIT_MAX: Duration = Duration::from_secs(2);
/// Connections whose first bytes are awaited; more stay in the listener's backlog.
const SORTING_MAX: usize = 128;
/// Connections that wait to be served.
const WAITING_MAX: usize = 16;
/// Pause after an accept that failed: files or memory are short.
const FAILURE_PAUSE: Duration = Duration::from_millis(100);

/// Connections to be served.
pub(super) type Incoming = ReceiverStream<io::Result<TcpStream>>;

/// Connects to a peer.
pub(crate) async fn connect(address: &str, is_for_lanes: bool) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    if is_for_lanes {
        stream.write_all(&LANES).await?;
    }
    Ok(stream)
}

/// Sorts what comes in.
#[derive(Debug)]
pub(super) struct Sorter {
    meta: mpsc::Sender<io::Result<TcpStream>>,
    lanes: mpsc::Sender<io::Result<TcpStream>>,
    lanes_runtime: Handle,
}

impl Sorter {
    /// A sorter, what it finds for group 0, and what for the lanes, whose runtime this is.
    pub(super) fn new(lanes_runtime: Handle) -> (Self, Incoming, Incoming) {
        let (meta, of_meta) = mpsc::channel(WAITING_MAX);
        let (lanes, of_lanes) = mpsc::channel(WAITING_MAX);
        let sorter = Self {
            meta,
            lanes,
            lanes_runtime,
        };
        (
            sorter,
            ReceiverStream::new(of_meta),
            ReceiverStream::new(of_lanes),
        )
    }

    /// Accepts for ever.
    pub(super) async fn run(self, listener: TcpListener) {
        let (sorter, room) = (Arc::new(self), Arc::new(Semaphore::new(SORTING_MAX)));
        while let Ok(place) = Arc::clone(&room).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let sorter = Arc::clone(&sorter);
                    tokio::spawn(async move {
                        let _place = place;
                        let sorted = tokio::time::timeout(FIRST_WAIT_MAX, sorter.sort(stream)).await;
                        if let Ok(Err(error)) = sorted {
                            tracing::debug!(%error, "connection of a peer not taken");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection of a peer cannot be accepted");
                    tokio::time::sleep(FAILURE_PAUSE).await;
                }
            }
        }
    }

    async fn sort(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut first = [0; LANES.len()];
        // One byte tells; what was only looked at stays in the socket.
        if stream.peek(&mut first[..1]).await? == 0 || first[0] != LANES[0] {
            let _ = self.meta.send(Ok(stream)).await;
            return Ok(());
        }
        stream.read_exact(&mut first).await?;
        if first != LANES {
            let text = "its first bytes are those of no version that this scheduler knows";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let stream = stream.into_std()?;
        let stream = {
            let _entered = self.lanes_runtime.enter();
            TcpStream::from_std(stream)?
        };
        let _ = self.lanes.send(Ok(stream)).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_connection_goes_where_it_says_and_loses_nothing_that_follows() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sorter, mut of_meta, mut of_lanes) = Sorter::new(Handle::current());
        let accepting = tokio::spawn(sorter.run(listener));
        for (is_for_lanes, incoming) in [(true, &mut of_lanes), (false, &mut of_meta)] {
            let mut far = connect(&address, is_for_lanes).await.unwrap();
            far.write_all(b"PRI * HTTP/2.0").await.unwrap();
            let mut near = incoming.next().await.unwrap().unwrap();
            let mut text = [0; 14];
            near.read_exact(&mut text).await.unwrap();
            assert_eq!(&text, b"PRI * HTTP/2.0");
        }
        // Neither the one nor the other: closed.
        let mut far = TcpStream::connect(&address).await.unwrap();
        far.write_all(b"WKL9").await.unwrap();
        assert_eq!(far.read(&mut [0; 1]).await.unwrap(), 0);
        accepting.abort();
    }
}
