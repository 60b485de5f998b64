//! Connections that are read in small pieces.
//!
//! The rule of this file: what a connection keeps in memory of what its client sends is some ten kilobytes. The
//! HTTP library makes its buffer larger each time that one read fills it, to hundreds of kilobytes for each
//! upload, and keeps it while it waits for the rest.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// How much one read brings at most, in bytes.
const READ: usize = 16 * 1024;

/// A listener whose connections are read in small pieces.
pub struct SmallReads(pub TcpListener);

/// A connection of [`SmallReads`].
pub struct SmallRead(pub TcpStream);

impl Listener for SmallReads {
    type Io = SmallRead;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (SmallRead, SocketAddr) {
        // That one waits, and tries again, where too many files are open.
        let (stream, address) = Listener::accept(&mut self.0).await;
        (SmallRead(stream), address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl AsyncRead for SmallRead {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() <= READ {
            return Pin::new(&mut self.0).poll_read(context, buffer);
        }
        let mut small = ReadBuf::new(buffer.initialize_unfilled_to(READ));
        ready!(Pin::new(&mut self.0).poll_read(context, &mut small))?;
        let read = small.filled().len();
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SmallRead {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
