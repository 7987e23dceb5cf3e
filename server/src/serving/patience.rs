//! A connection whose other end may read slowly, but has to read.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A connection that fails when nothing of what is to be written can be for so long. While there is nothing to write, no
/// time passes.
#[derive(Debug)]
pub struct Patient<T> {
    io: T,
    patience: Duration,
    /// Since something could not be written.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<T> Patient<T> {
    /// Waits so long for whoever reads.
    pub fn new(io: T, patience: Duration) -> Self {
        Self { io, patience, stalled: None }
    }

    /// What came of an attempt to write, or that there were too many in vain.
    fn within_patience<R>(&mut self, cx: &mut Context<'_>, attempt: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if attempt.is_ready() {
            self.stalled = None;
            return attempt;
        }
        let patience = self.patience;
        ready!(self.stalled.get_or_insert_with(|| Box::pin(sleep(patience))).as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(ErrorKind::TimedOut, "nobody reads what is written")))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Patient<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Patient<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let attempt = Pin::new(&mut self.io).poll_write(cx, buf);
        self.within_patience(cx, attempt)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let attempt = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.within_patience(cx, attempt)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let attempt = Pin::new(&mut self.io).poll_flush(cx);
        self.within_patience(cx, attempt)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let attempt = Pin::new(&mut self.io).poll_shutdown(cx);
        self.within_patience(cx, attempt)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn a_slow_reader_goes_on_and_none_is_let_go() {
        let patience = Duration::from_millis(200);
        let (near, mut far) = duplex(8);
        let mut near = Patient::new(near, patience);
        let reading = tokio::spawn(async move {
            for _ in 0..8 {
                sleep(patience / 4).await;
                far.read_exact(&mut [0; 8]).await.unwrap();
            }
            far
        });
        // It takes twice as long as nothing may be read.
        near.write_all(&[1; 64]).await.unwrap();
        let far = reading.await.unwrap();
        // Without anything to write, nobody needs to read.
        sleep(2 * patience).await;
        near.write_all(&[2; 8]).await.unwrap();
        let error = near.write_all(&[3; 8]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        drop(far);
    }
}
