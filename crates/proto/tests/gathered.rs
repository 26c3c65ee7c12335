//! What a call costs on the wire: its head and its body are one write.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::mpsc;
use tonic::transport::Endpoint;
use whiskraft_proto::transport::Gathered;
use whiskraft_proto::v1;
use whiskraft_proto::v1::controller_client::ControllerClient;

/// Bytes of a frame's head, by RFC 9113, section 4.1.
const FRAME_HEAD_LEN: usize = 9;
/// What a client says first, by RFC 9113, section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Writes that are not looked at yet: far more than two calls need.
const WRITES_MAX: usize = 64;
const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// A connection that tells of every write.
struct Told {
    inner: DuplexStream,
    writes: mpsc::Sender<Vec<u8>>,
}

impl AsyncRead for Told {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for Told {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, buffer);
        if let Poll::Ready(Ok(len)) = written {
            let told = self.writes.try_send(buffer[..len].to_vec());
            told.expect("there is room, and somebody listens");
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// Types of the frames in a write.
fn frames(write: &[u8]) -> Vec<u8> {
    let mut rest = write.strip_prefix(PREFACE).unwrap_or(write);
    let mut types = Vec::new();
    while let [a, b, c, kind, ..] = rest {
        let len = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).expect("a length of 24 bits");
        types.push(*kind);
        rest = &rest[FRAME_HEAD_LEN + len..];
    }
    types
}

#[tokio::test]
async fn head_and_body_of_a_call_are_one_write() {
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let (writes, mut told) = mpsc::channel(WRITES_MAX);
    let mut near = Some(Gathered::new(Told { inner: near, writes }));
    let connector = tower::service_fn(move |_| {
        let connection = near.take().map(TokioIo::new);
        async move { connection.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
    });
    let channel = Endpoint::from_static("http://scheduler:1").connect_with_connector_lazy(connector);
    let call = |channel| {
        tokio::spawn(async move {
            let request = v1::EnsureQueuesRequest::default();
            drop(ControllerClient::new(channel).ensure_queues(request).await);
        })
    };
    // Nobody answers; what is sent is taken.
    let _sink = tokio::spawn(async move { while far.read_u8().await.is_ok() {} });
    let _first = call(channel.clone());
    // The connection begins with words of its own.
    while !frames(&told.recv().await.unwrap()).contains(&DATA) {}
    let _second = call(channel);
    let frames = frames(&told.recv().await.unwrap());
    assert!(frames.starts_with(&[HEADERS, DATA]), "{frames:?}");
}
