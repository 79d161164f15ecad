//! Connections over TLS for `axum::serve`: handshakes go on beside each other and beside the answers, each with a time limit,
//! and only a connection whose handshake is done is handed on. Limits: how many there are is bounded; past that, new ones wait
//! in the system's queue.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Tls;
use super::clients::Clients;
use crate::authorize::x509::Peer;
use crate::telemetry::Telemetry;
use crate::telemetry::events::HandshakeFailed;

/// How long a handshake may take: a client that says nothing holds a place no longer.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(5);
/// Handshakes under way. Each costs a signature, so a flood of them must not starve the answers.
const MAX_HANDSHAKES: usize = 256;
/// Connections that are open, handshakes counted: a file descriptor and some 40 KiB each.
const MAX_CONNECTIONS: usize = 4096;
/// How long a connection may rest: longer than any answer is waited for, and than common clients keep one.
const IDLE: Duration = Duration::from_secs(120);

/// Takes connections and hands on those that speak TLS.
#[derive(Debug)]
pub struct TlsListener {
    tcp: TcpListener,
    tls: Tls,
    telemetry: Telemetry,
    handshakes: JoinSet<Option<(TlsIo, Connection)>>,
    places: Arc<Semaphore>,
}

/// Where a connection comes from, and whom it has proven.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The client's address.
    pub address: SocketAddr,
    /// The workload whose certificate it presented, with the key in hand.
    pub peer: Option<Arc<Peer>>,
}

impl TlsListener {
    /// Over a listener on TCP.
    pub fn new(tcp: TcpListener, tls: Tls, telemetry: Telemetry) -> Self {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        Self { tcp, tls, telemetry, handshakes: JoinSet::new(), places }
    }

    fn begin(&mut self, stream: TcpStream, address: SocketAddr, place: OwnedSemaphorePermit) {
        let (server, telemetry) = (self.tls.server, self.telemetry.clone());
        let (acceptor, clients) = (TlsAcceptor::from(Arc::clone(&self.tls.config)), self.tls.clients.clone());
        self.handshakes.spawn(async move {
            match timeout(HANDSHAKE_WAIT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => match peer(&stream, clients.as_deref()) {
                    Ok(peer) => Some((TlsIo::new(stream, place), Connection { address, peer })),
                    Err(problem) => {
                        HandshakeFailed { server, cause: "refused", problem: &problem }.emit(&telemetry);
                        None
                    }
                },
                Ok(Err(error)) => {
                    let is_refused = error
                        .get_ref()
                        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
                        .is_some_and(|error| matches!(error, rustls::Error::InvalidCertificate(_)));
                    let cause = if is_refused { "refused" } else { "failed" };
                    HandshakeFailed { server, cause, problem: &error.to_string() }.emit(&telemetry);
                    None
                }
                Err(_) => {
                    HandshakeFailed { server, cause: "late", problem: "it took too long" }.emit(&telemetry);
                    None
                }
            }
        });
    }
}

/// Whom the client of a finished handshake has proven. The certificates are judged once more rather than carried out of the
/// verifier: what counts is what this connection holds.
fn peer(stream: &TlsStream<TcpStream>, clients: Option<&Clients>) -> Result<Option<Arc<Peer>>, String> {
    match (stream.get_ref().1.peer_certificates(), clients) {
        (Some(chain), Some(clients)) => {
            clients.judge(chain).map(|peer| Some(Arc::new(peer))).map_err(|error| error.to_string())
        }
        _ => Ok(None),
    }
}

impl Listener for TlsListener {
    type Io = TlsIo;
    type Addr = Connection;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let may_begin = self.handshakes.len() < MAX_HANDSHAKES;
            let (places, tcp) = (Arc::clone(&self.places), &mut self.tcp);
            let next = async move {
                // Never closed.
                let Ok(place) = places.acquire_owned().await else { return std::future::pending().await };
                // Waits out the system's errors itself.
                let (stream, address) = Listener::accept(tcp).await;
                (stream, address, place)
            };
            tokio::select! {
                Some(done) = self.handshakes.join_next() => {
                    // One that panicked is one that failed: nothing of it is left.
                    if let Ok(Some(connection)) = done {
                        return connection;
                    }
                }
                (stream, address, place) = next, if may_begin => self.begin(stream, address, place),
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(Connection { address: self.tcp.local_addr()?, peer: None })
    }
}

impl Connected<IncomingStream<'_, TlsListener>> for Connection {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        stream.remote_addr().clone()
    }
}

/// A connection that ends by itself when nothing has gone either way for a while.
#[derive(Debug)]
pub struct TlsIo {
    stream: TlsStream<TcpStream>,
    rest: Pin<Box<Sleep>>,
    /// Given back when the connection ends.
    _place: OwnedSemaphorePermit,
}

impl TlsIo {
    fn new(stream: TlsStream<TcpStream>, place: OwnedSemaphorePermit) -> Self {
        Self { stream, rest: Box::pin(tokio::time::sleep(IDLE)), _place: place }
    }

    /// What has gone through, or that nothing has for too long.
    fn moved<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.rest.as_mut().reset(Instant::now() + IDLE);
            return polled;
        }
        self.rested(cx)
    }

    fn rested<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        ready!(self.rest.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for TlsIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.moved(cx, polled)
    }
}

impl AsyncWrite for TlsIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.moved(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Pending => self.rested(cx),
            // Perhaps there was nothing to flush, so this is no sign of life.
            done => done,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
