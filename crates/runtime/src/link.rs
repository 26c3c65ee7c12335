//! The line protocol between the proxy and a launcher (`launchers/`), over one socket.
//!
//! A request is `<number> <verb> <JSON>`, an answer `<number> <HTTP status> <JSON>`, each one line. Invariant: a
//! request is answered or fails with [`Closed`]; nothing waits on a link that has ended.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Longest answer of a launcher. Far above any result limit; a launcher that writes more than this without a line
/// end is broken.
const ANSWER_LEN_MAX: u64 = 128 << 20;

/// What a launcher said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// The launcher is gone or broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed;

/// The proxy's end of the socket.
pub(crate) struct Link {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    waiting: Arc<Mutex<Waiting>>,
    reader: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    calls: BTreeMap<u64, oneshot::Sender<Reply>>,
    closed: bool,
}

impl Link {
    /// Takes over a connected socket.
    pub(crate) fn new(stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let task = tokio::spawn(read_answers(reader, Arc::clone(&waiting)));
        Self {
            writer: tokio::sync::Mutex::new(writer),
            waiting,
            reader: Mutex::new(Some(task)),
        }
    }

    /// Sends a request and waits for its answer. `body` has no line end.
    pub(crate) async fn call(&self, verb: &str, body: &[u8]) -> Result<Reply, Closed> {
        let (sender, answer) = oneshot::channel();
        let number = lock(&self.waiting).enter(sender)?;
        let head = format!("{number} {verb} ");
        let line = [head.as_bytes(), body, b"\n"].concat();
        // A failed write is the launcher's end; the reader sees it too and drops the sender.
        let _ = self.writer.lock().await.write_all(&line).await;
        answer.await.map_err(|_| Closed)
    }

    /// Lets what the launcher wrote before its end arrive, for a moment, then fails what still waits.
    pub(crate) async fn close(&self, patience: std::time::Duration) {
        let task = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut task) = task
            && tokio::time::timeout(patience, &mut task).await.is_err()
        {
            // A process that the launcher forked holds its end open.
            task.abort();
        }
        lock(&self.waiting).close();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(task) = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

impl Waiting {
    fn enter(&mut self, sender: oneshot::Sender<Reply>) -> Result<u64, Closed> {
        if self.closed {
            return Err(Closed);
        }
        self.next += 1;
        self.calls.insert(self.next, sender);
        Ok(self.next)
    }

    fn close(&mut self) {
        self.closed = true;
        self.calls.clear();
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read_answers(stream: OwnedReadHalf, waiting: Arc<Mutex<Waiting>>) {
    let mut reader = BufReader::with_capacity(64 << 10, stream);
    while let Ok(Some((number, reply))) = read_answer(&mut reader).await {
        let sender = lock(&waiting).calls.remove(&number);
        if let Some(sender) = sender {
            // The caller may have gone away; its activation is over all the same.
            let _ = sender.send(reply);
        }
    }
    lock(&waiting).close();
}

/// Reads one answer; `None` at the end of the stream or of sense.
async fn read_answer(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<(u64, Reply)>> {
    let mut line = Vec::new();
    reader.take(ANSWER_LEN_MAX).read_until(b'\n', &mut line).await?;
    Ok(parse_answer(line))
}

fn parse_answer(mut line: Vec<u8>) -> Option<(u64, Reply)> {
    if line.pop() != Some(b'\n') {
        return None;
    }
    let first = line.iter().position(|byte| *byte == b' ')?;
    let second = first + 1 + line[first + 1..].iter().position(|byte| *byte == b' ')?;
    let number = std::str::from_utf8(&line[..first]).ok()?.parse().ok()?;
    let status = std::str::from_utf8(&line[first + 1..second]).ok()?.parse().ok()?;
    line.drain(..=second);
    Some((number, Reply { status, body: line }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn answers_are_parsed() {
        let reply = Reply {
            status: 200,
            body: b"{\"a\": 1}".to_vec(),
        };
        assert_eq!(parse_answer(b"7 200 {\"a\": 1}\n".to_vec()), Some((7, reply)));
        for bad in ["", "\n", "7 200 {}", "x 200 {}\n", "7 x {}\n", "7\n", "7 200\n"] {
            assert_eq!(parse_answer(bad.as_bytes().to_vec()), None, "{bad:?}");
        }
    }

    #[tokio::test]
    async fn answers_find_their_requests_in_any_order() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let link = Link::new(ours);
        let launcher = async {
            let mut theirs = BufReader::new(theirs);
            let (mut one, mut two) = (String::new(), String::new());
            theirs.read_line(&mut one).await.unwrap();
            theirs.read_line(&mut two).await.unwrap();
            assert_eq!((one.as_str(), two.as_str()), ("1 run a\n", "2 run b\n"));
            theirs.write_all(b"2 201 second\n1 200 first\n").await.unwrap();
        };
        let (one, two, ()) = tokio::join!(link.call("run", b"a"), link.call("run", b"b"), launcher);
        assert_eq!(one.unwrap().body, b"first");
        assert_eq!(
            two.unwrap(),
            Reply {
                status: 201,
                body: b"second".to_vec()
            }
        );
    }

    #[tokio::test]
    async fn an_ended_launcher_fails_the_call_in_flight_and_later_ones() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let link = Link::new(ours);
        let (call, ()) = tokio::join!(link.call("run", b"a"), async { drop(theirs) });
        assert_eq!(call, Err(Closed));
        link.close(Duration::from_secs(5)).await;
        assert_eq!(link.call("run", b"b").await, Err(Closed));
    }
}
