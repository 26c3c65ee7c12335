//! Hot path: HTTP to an action proxy. Connections are kept between calls; a call costs no connect and no thread.
//!
//! Invariant: a call that could not be given to the proxy is told apart from one that got no answer, because the
//! first activation may go elsewhere and the second may not.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::classify::{Answer, Truncated};

/// Kept idle connections: one per concurrent run that a container is likely to have.
const IDLE_MAX: usize = 8;
/// Set by the proxy when the user's process ended for lack of memory.
const EXHAUSTED_HEADER: &str = "whiskraft-exhausted";

/// How large a body may be, and what is kept of a larger one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimits {
    /// Largest complete body.
    pub(crate) len_max: u64,
    /// Kept bytes of a larger one.
    pub(crate) truncation: u64,
}

/// The call never reached the proxy.
#[derive(Debug, thiserror::Error)]
#[error("the action proxy at {path} took no connection")]
pub(crate) struct NotSent {
    path: String,
    #[source]
    source: std::io::Error,
}

/// Calls one proxy.
#[derive(Debug)]
pub(crate) struct HttpClient {
    path: PathBuf,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

impl HttpClient {
    /// A client of the proxy that listens on this socket; connects when there is something to say.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            idle: Mutex::default(),
        }
    }

    /// Posts a JSON body and reads the whole answer.
    pub(crate) async fn post(
        &self,
        path: &'static str,
        body: Bytes,
        limits: BodyLimits,
    ) -> Result<Answer, NotSent> {
        let mut sender = self.connection().await?;
        let Ok(request) = request(path, body) else {
            return Ok(Answer::Nothing);
        };
        let response = match sender.try_send_request(request).await {
            Ok(response) => response,
            // With the message handed back the connection took nothing of it: not one byte was written.
            Err(mut error) => {
                let sent = error.take_message().is_none();
                let not_sent = || self.not_sent(std::io::ErrorKind::BrokenPipe.into());
                return if sent {
                    Ok(Answer::Nothing)
                } else {
                    Err(not_sent())
                };
            }
        };
        let answer = read(response, limits).await;
        if let Some(answer) = answer {
            self.keep(sender);
            return Ok(answer);
        }
        Ok(Answer::Nothing)
    }

    /// An idle connection that still works, or a new one.
    async fn connection(&self) -> Result<SendRequest<Full<Bytes>>, NotSent> {
        loop {
            let kept = self.idle().pop();
            match kept {
                Some(mut sender) => {
                    if !sender.is_closed() && sender.ready().await.is_ok() {
                        return Ok(sender);
                    }
                }
                None => return self.connect().await,
            }
        }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, NotSent> {
        let stream = UnixStream::connect(&self.path)
            .await
            .map_err(|source| self.not_sent(source))?;
        let handshake = handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| self.not_sent(std::io::Error::other(error)))?;
        tokio::spawn(async move {
            // Whoever called on this connection gets the error; there is nobody else to tell.
            let _ = connection.await;
        });
        Ok(sender)
    }

    fn keep(&self, sender: SendRequest<Full<Bytes>>) {
        let mut idle = self.idle();
        if idle.len() < IDLE_MAX && !sender.is_closed() {
            idle.push(sender);
        }
    }

    fn not_sent(&self, source: std::io::Error) -> NotSent {
        NotSent {
            path: self.path.display().to_string(),
            source,
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<SendRequest<Full<Bytes>>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn request(path: &'static str, body: Bytes) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let json = HeaderValue::from_static("application/json");
    let builder = Request::post(path).header(HOST, HeaderValue::from_static("container"));
    builder
        .header(CONTENT_TYPE, json.clone())
        .header(ACCEPT, json)
        .body(Full::new(body))
}

/// Reads an answer up to the limit. `None`: no usable answer, or the connection broke.
async fn read(response: Response<Incoming>, limits: BodyLimits) -> Option<Answer> {
    let code = response.status().as_u16();
    let headers = response.headers();
    // Without a length the end of the body cannot be told from the end of the container.
    let length: u64 = headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
    if headers.contains_key(EXHAUSTED_HEADER) {
        return Some(Answer::MemoryExhausted);
    }
    let truncated = (length > limits.len_max).then_some(Truncated {
        length,
        limit: limits.len_max,
    });
    let kept = if truncated.is_some() {
        limits.truncation.min(length)
    } else {
        length
    };
    let body = read_body(response.into_body(), usize::try_from(kept).ok()?).await?;
    Some(Answer::Response {
        code,
        body,
        truncated,
    })
}

/// Reads a body to its end and keeps so much of it.
async fn read_body(mut body: Incoming, kept_max: usize) -> Option<Bytes> {
    let mut first: Option<Bytes> = None;
    let mut kept = BytesMut::new();
    while !body.is_end_stream() {
        let Some(frame) = body.frame().await else { break };
        let Ok(mut data) = frame.ok()?.into_data() else {
            continue;
        };
        let room = kept_max - first.as_ref().map_or(kept.len(), Bytes::len);
        data.truncate(room);
        match first.take() {
            // Most bodies are one piece, which is passed on as it is.
            None if kept.is_empty() => first = Some(data),
            None => kept.extend_from_slice(&data),
            Some(before) => {
                kept.extend_from_slice(&before);
                kept.extend_from_slice(&data);
            }
        }
    }
    Some(first.unwrap_or_else(|| kept.freeze()))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    use super::*;

    const LIMITS: BodyLimits = BodyLimits {
        len_max: 20,
        truncation: 5,
    };

    /// Serves these raw answers, one per request, on one connection, then closes it.
    async fn serve_one(listener: &UnixListener, answers: &[&str]) {
        let (mut stream, _) = listener.accept().await.unwrap();
        for answer in answers {
            let mut seen = Vec::new();
            while !seen.ends_with(b"\r\n\r\n{}") {
                let mut buffer = [0; 512];
                let read = stream.read(&mut buffer).await.unwrap();
                assert!(read > 0);
                seen.extend_from_slice(&buffer[..read]);
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    fn listen() -> (tempfile::TempDir, UnixListener, HttpClient) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        (directory, listener, HttpClient::new(path))
    }

    async fn answers_to(answers: &[&str]) -> Vec<Answer> {
        let (_directory, listener, client) = listen();
        let calls = async {
            let mut got = Vec::new();
            for _ in answers {
                got.push(
                    client
                        .post("/run", Bytes::from_static(b"{}"), LIMITS)
                        .await
                        .unwrap(),
                );
            }
            got
        };
        tokio::join!(calls, serve_one(&listener, answers)).0
    }

    #[tokio::test]
    async fn calls_share_a_connection() {
        let one = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        let got = answers_to(&[one, one, one]).await;
        let expected = Answer::Response {
            code: 200,
            body: Bytes::from_static(b"{}"),
            truncated: None,
        };
        assert_eq!(got, vec![expected; 3]);
    }

    #[tokio::test]
    async fn a_long_body_is_cut_and_the_connection_still_good() {
        let long = "HTTP/1.1 200 OK\r\ncontent-length: 21\r\n\r\n012345678901234567890";
        let short = "HTTP/1.1 502 Bad\r\ncontent-length: 20\r\n\r\n01234567890123456789";
        let got = answers_to(&[long, short]).await;
        let truncated = Some(Truncated {
            length: 21,
            limit: 20,
        });
        assert_eq!(
            got[0],
            Answer::Response {
                code: 200,
                body: Bytes::from_static(b"01234"),
                truncated
            }
        );
        let body = Bytes::from_static(b"01234567890123456789");
        assert_eq!(
            got[1],
            Answer::Response {
                code: 502,
                body,
                truncated: None
            }
        );
    }

    #[tokio::test]
    async fn answers_without_length_or_cut_short_are_none() {
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
        assert_eq!(answers_to(&[chunked]).await, [Answer::Nothing]);
        assert_eq!(
            answers_to(&["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}"]).await,
            [Answer::Nothing]
        );
        assert_eq!(answers_to(&[""]).await, [Answer::Nothing]);
        let exhausted = "HTTP/1.1 400 Bad\r\nwhiskraft-exhausted: memory\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(answers_to(&[exhausted]).await, [Answer::MemoryExhausted]);
    }

    #[tokio::test]
    async fn a_call_that_finds_nobody_was_not_sent() {
        let (_directory, listener, client) = listen();
        drop(listener);
        assert!(client.post("/run", Bytes::new(), LIMITS).await.is_err());
    }

    #[tokio::test]
    async fn a_kept_connection_that_was_closed_is_replaced() {
        let (_directory, listener, client) = listen();
        let one = ["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"];
        for _ in 0..2 {
            let call = client.post("/run", Bytes::from_static(b"{}"), LIMITS);
            let (answer, ()) = tokio::join!(call, serve_one(&listener, &one));
            assert!(matches!(answer.unwrap(), Answer::Response { code: 200, .. }));
            // Lets the closed end reach the kept connection.
            while client.idle().iter().any(|sender| !sender.is_closed()) {
                tokio::task::yield_now().await;
            }
        }
    }
}
