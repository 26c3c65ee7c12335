//! The two output pipes of a container: drained all the time, and to the last byte when an activation ends.
//!
//! The proxy writes everything of an activation, sentinels included, before it answers. So once the answer is here,
//! what an empty pipe has given is complete: nothing is waited for, and no text decides when to stop.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::unix::pipe::Receiver;

use crate::backend::clock;
use crate::backend::logs::{LogShares, Share, ShareEnd, Stream};

/// Bytes per read.
const READ_LEN: usize = 32 << 10;
/// Most bytes taken from a pipe in one go: what the largest pipe can hold. A process that writes without end must
/// not keep an activation from ending.
const DRAIN_LEN_MAX: usize = 1 << 20;

/// Both pipes and what came out of them.
#[derive(Debug)]
pub(crate) struct LogPipes {
    stdout: Receiver,
    stderr: Receiver,
    collected: Mutex<Collected>,
}

#[derive(Debug)]
struct Collected {
    shares: LogShares,
    /// Activations that run.
    active: u32,
    /// Output of a good init waits for the activation that asked for it.
    after_init: bool,
    buffer: Box<[u8]>,
}

impl LogPipes {
    /// Takes over the reading ends and keeps draining them until both are closed.
    pub(crate) fn start(stdout: io::PipeReader, stderr: io::PipeReader) -> io::Result<Arc<Self>> {
        let receiver = |reader: io::PipeReader| Receiver::from_owned_fd(reader.into());
        let collected = Collected {
            shares: LogShares::new(),
            active: 0,
            after_init: false,
            buffer: vec![0; READ_LEN].into_boxed_slice(),
        };
        let pipes = Self {
            stdout: receiver(stdout)?,
            stderr: receiver(stderr)?,
            collected: Mutex::new(collected),
        };
        let pipes = Arc::new(pipes);
        tokio::spawn(Arc::clone(&pipes).pump(Stream::Stdout));
        tokio::spawn(Arc::clone(&pipes).pump(Stream::Stderr));
        Ok(pipes)
    }

    /// An activation is about to write.
    pub(crate) fn begin(&self, limit: u64) {
        let mut collected = self.lock();
        if collected.after_init {
            collected.shares.continue_with(limit);
        } else if collected.active == 0 {
            collected.drain(self);
            collected.shares.begin(limit);
        }
        collected.after_init = false;
        collected.active += 1;
    }

    /// A good init has ended; what it wrote belongs to the run that follows.
    pub(crate) fn end_init(&self) {
        let mut collected = self.lock();
        collected.active -= 1;
        collected.after_init = true;
    }

    /// The activation has answered, or never will.
    pub(crate) fn end(&self, end: ShareEnd, limit: u64) -> Share {
        let mut collected = self.lock();
        collected.drain(self);
        collected.active -= 1;
        let shared = collected.active > 0;
        let end = if shared { ShareEnd::Shared } else { end };
        let share = collected.shares.take(end, clock::wall());
        if shared {
            collected.shares.begin(limit);
        }
        share
    }

    /// Adds a line of the platform's own to what runs.
    pub(crate) fn note(&self, text: &str) {
        self.lock().shares.note(text, clock::wall());
    }

    /// Keeps the pipe from filling up while nobody asks.
    async fn pump(self: Arc<Self>, stream: Stream) {
        let receiver = self.receiver(stream);
        while receiver.readable().await.is_ok() {
            let mut collected = self.lock();
            let Collected { shares, buffer, .. } = &mut *collected;
            match receiver.try_read(buffer) {
                Ok(0) => return,
                Ok(read) => shares.push(stream, &buffer[..read], clock::wall()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }

    fn receiver(&self, stream: Stream) -> &Receiver {
        match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Collected> {
        self.collected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collected {
    /// Takes what is in both pipes now. Reads past the event loop, which may not have noticed it yet.
    fn drain(&mut self, pipes: &LogPipes) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let pipe = pipes.receiver(stream).as_fd();
            let mut total = 0;
            while total < DRAIN_LEN_MAX {
                match rustix::io::read(pipe, &mut self.buffer[..]) {
                    Ok(read) if read > 0 => {
                        total += read;
                        self.shares.push(stream, &self.buffer[..read], clock::wall());
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    // The end, or empty.
                    Ok(_) | Err(_) => break,
                }
            }
        }
    }
}
