//! A connection that lets everything that is ready be written together.
//!
//! HTTP/2 writes whenever one of its streams has something, and Tokio runs a connection right after the stream that woke it. Of many
//! streams that wake at once, as watchers of one change do, each would cost a write of its own, which is the dearest part of a short
//! frame. So a connection steps back once before a small write: tasks that are ready run first, and what they have goes along.
//!
//! A write in several parts is one to which nothing can be added: HTTP/2 hands a longer frame's payload over beside its head, and makes no
//! further frame until both are written.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// Bytes from which a write is worth its cost, whatever could go along.
const WORTH_LEN: usize = 4096;

/// See the module.
#[derive(Debug)]
pub struct Gathered<T> {
    inner: T,
    /// Whether what is to be written has waited for others already.
    stepped_back: bool,
}

impl<T> Gathered<T> {
    /// A connection that writes through `inner`.
    pub const fn new(inner: T) -> Self {
        Self {
            inner,
            stepped_back: false,
        }
    }

    /// Whether others are let in first: once for each write, and only if it is small.
    fn steps_back(&mut self, len: usize, context: &Context<'_>) -> bool {
        if self.stepped_back || len >= WORTH_LEN {
            return false;
        }
        self.stepped_back = true;
        // A task that wakes itself goes behind those that are ready; it never sleeps on this.
        context.waker().wake_by_ref();
        true
    }

    /// Notes what was written of `len`; the rest, if there is one, has waited.
    fn written(&mut self, len: usize, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = &written {
            self.stepped_back = written.as_ref().is_ok_and(|count| *count < len);
        }
        written
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Gathered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gathered<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.steps_back(buffer.len(), context) {
            return Poll::Pending;
        }
        let written = Pin::new(&mut self.inner).poll_write(context, buffer);
        self.written(buffer.len(), written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len = buffers.iter().map(|buffer| buffer.len()).sum();
        let parts = buffers.iter().filter(|buffer| !buffer.is_empty()).count();
        if parts <= 1 && self.steps_back(len, context) {
            return Poll::Pending;
        }
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, buffers);
        self.written(len, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl<T: Connected> Connected for Gathered<T> {
    type ConnectInfo = T::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.inner.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use super::*;

    /// Takes everything, or so much at a time, and counts the writes.
    #[derive(Default)]
    struct Sink {
        writes: Vec<usize>,
        room: Option<usize>,
    }

    impl AsyncWrite for Sink {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &[u8],
        ) -> Poll<io::Result<usize>> {
            let len = buffer.len().min(self.room.unwrap_or(usize::MAX));
            if len == 0 {
                return Poll::Pending; // As a full socket does, which wakes by itself.
            }
            self.writes.push(len);
            Poll::Ready(Ok(len))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_small_write_steps_back_once_and_then_takes_what_has_come() {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        let mut connection = Gathered::new(Sink::default());
        for round in 1..=2 {
            let first = Pin::new(&mut connection).poll_write(&mut context, &[0; 10]);
            assert!(first.is_pending());
            assert_eq!(
                woken.0.load(Ordering::Relaxed),
                round,
                "it must not wait for anything"
            );
            let second = Pin::new(&mut connection).poll_write(&mut context, &[0; 30]);
            assert!(matches!(second, Poll::Ready(Ok(30))), "{second:?}");
        }
        assert_eq!(connection.inner.writes, [30, 30]);
    }

    #[test]
    fn a_large_write_goes_at_once() {
        let mut context = Context::from_waker(Waker::noop());
        let mut connection = Gathered::new(Sink::default());
        let written = Pin::new(&mut connection).poll_write(&mut context, &[0; WORTH_LEN]);
        assert!(written.is_ready());
        let parts = [
            IoSlice::new(&[0; WORTH_LEN / 2]),
            IoSlice::new(&[0; WORTH_LEN / 2]),
        ];
        let written = Pin::new(&mut connection).poll_write_vectored(&mut context, &parts);
        assert!(written.is_ready());
    }

    #[test]
    fn what_nothing_can_be_added_to_goes_at_once() {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        let mut connection = Gathered::new(Sink::default());
        let parts = [IoSlice::new(&[0; 9]), IoSlice::new(&[0; 300])];
        let written = Pin::new(&mut connection).poll_write_vectored(&mut context, &parts);
        assert!(written.is_ready(), "a head and its payload");
        let written = Pin::new(&mut connection).poll_write(&mut context, &[0; 300]);
        assert!(written.is_ready(), "what the first did not take");
        let parts = [IoSlice::new(&[0; 9]), IoSlice::new(&[])];
        let written = Pin::new(&mut connection).poll_write_vectored(&mut context, &parts);
        assert!(written.is_pending(), "one part");
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn the_rest_of_a_write_and_a_full_socket_do_not_step_back_again() {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        let mut connection = Gathered::new(Sink {
            room: Some(10),
            ..Sink::default()
        });
        let mut write = |connection: &mut Gathered<Sink>, len: usize| {
            Pin::new(connection).poll_write(&mut context, &vec![0; len])
        };
        assert!(write(&mut connection, 30).is_pending());
        assert!(matches!(write(&mut connection, 30), Poll::Ready(Ok(10))));
        assert!(matches!(write(&mut connection, 20), Poll::Ready(Ok(10))));
        connection.inner.room = Some(0);
        for _ in 0..3 {
            assert!(write(&mut connection, 10).is_pending());
        }
        assert_eq!(
            woken.0.load(Ordering::Relaxed),
            1,
            "it waits for the socket, and does not spin"
        );
        connection.inner.room = None;
        assert!(matches!(write(&mut connection, 10), Poll::Ready(Ok(10))));
        assert!(
            write(&mut connection, 10).is_pending(),
            "the next one steps back again"
        );
    }

    #[tokio::test]
    async fn what_wakes_together_is_written_together() {
        let mut connection = Gathered::new(Sink::default());
        let ready = Arc::new(AtomicUsize::new(0));
        for _ in 0..5 {
            let ready = Arc::clone(&ready);
            tokio::spawn(async move { ready.fetch_add(7, Ordering::Relaxed) });
        }
        let written = poll_fn(|context| {
            let bytes = vec![0; 1 + ready.load(Ordering::Relaxed)];
            Pin::new(&mut connection).poll_write(context, &bytes)
        });
        assert_eq!(written.await.unwrap(), 36);
    }
}
