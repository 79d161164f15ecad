//! What a gate serves over HTTP. Health and metrics stand here: `/healthz`, `/readyz` and `/metrics`, on a loopback port
//! unless the configuration says otherwise. Limits: these three only read; nothing that is asked of them can change what
//! the gate does, and there is no authentication, so that whoever reaches the port may read them.

pub mod access;
pub mod approvals;
mod ready;
pub mod tls;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::oneshot;

use self::tls::{Connection, Tls, TlsListener};
use crate::telemetry::Telemetry;
use crate::telemetry::events::ServerListening;

/// How long a stopping server waits for answers under way; a client that reads slowly cannot hold up a shutdown.
const STOP_WAIT: Duration = Duration::from_secs(2);
/// The content type of Prometheus' text format.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Why the server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken, or not this machine's.
    #[error("cannot listen on `{address}`: {source}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The thread or its runtime cannot be made.
    #[error("cannot start the server's thread: {0}")]
    Thread(io::Error),
    /// TLS cannot be set up.
    #[error("TLS cannot be spoken: {0}")]
    Tls(#[from] rustls::Error),
}

/// The running server, on a thread of its own. Dropped, it stops as by [`Server::stop`].
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on `address` (port 0: any free one) and answers from `telemetry` until it is stopped. The address is
    /// bound when this returns.
    ///
    /// # Errors
    /// [`ServeError`] where the address cannot be had or no thread can be made.
    pub fn start(address: SocketAddr, telemetry: Telemetry) -> Result<Self, ServeError> {
        let router = router(telemetry.clone());
        Self::serving("health and metrics", address, None, router, &telemetry)
    }

    /// The same for any router, over TLS where there is one; `what` is what it serves, for the log.
    pub(crate) fn serving(
        what: &'static str,
        address: SocketAddr,
        tls: Option<Tls>,
        router: Router,
        telemetry: &Telemetry,
    ) -> Result<Self, ServeError> {
        let refused = |source| ServeError::Listen { address, source };
        let listener = TcpListener::bind(address).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        let bound = listener.local_addr().map_err(refused)?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServeError::Thread)?;
        let (stop, stopped) = oneshot::channel();
        ServerListening { what, address: bound }.emit(telemetry);
        let telemetry = telemetry.clone();
        let thread = std::thread::Builder::new()
            .name("serve".to_owned())
            .spawn(move || {
                runtime.block_on(answer(what, listener, tls.map(|tls| (tls, telemetry)), router, stopped));
                runtime.shutdown_timeout(STOP_WAIT);
            })
            .map_err(ServeError::Thread)?;
        Ok(Self { address: bound, stop: Some(stop), thread: Some(thread) })
    }

    /// The address that is listened on, with its real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, lets answers under way end, and waits for that, a few seconds at most.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The receiver is gone only where the server has ended by itself.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the server's thread ended in a panic");
        }
    }
}

async fn answer(
    what: &'static str,
    listener: TcpListener,
    tls: Option<(Tls, Telemetry)>,
    router: Router,
    stopped: oneshot::Receiver<()>,
) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(what, problem = error.to_string(), "cannot be served");
            return;
        }
    };
    let (stopping, mut deadline) = oneshot::channel::<()>();
    let stop = async move {
        // An error means that the handle is gone, which is a stop too.
        let _ = stopped.await;
        drop(stopping);
    };
    let serving = async move {
        match tls {
            None => axum::serve(listener, router).with_graceful_shutdown(stop).await,
            Some((tls, telemetry)) => {
                let listener = TlsListener::new(listener, tls, telemetry);
                let router = router.into_make_service_with_connect_info::<Connection>();
                axum::serve(listener, router).with_graceful_shutdown(stop).await
            }
        }
    };
    let late = async move {
        let _ = (&mut deadline).await;
        tokio::time::sleep(STOP_WAIT).await;
    };
    tokio::select! {
        served = serving => if let Err(error) = served {
            tracing::error!(what, problem = error.to_string(), "no longer served");
        },
        () = late => {}
    }
}

fn router(telemetry: Telemetry) -> Router {
    Router::new()
        .route("/healthz", get(|| async { text(StatusCode::OK, "ok\n".to_owned()) }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(telemetry)
}

async fn readyz(State(telemetry): State<Telemetry>) -> Response {
    let status = telemetry.status();
    let code = if status.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, plain_headers(), axum::Json(ready::Body::from(status))).into_response()
}

async fn metrics(State(telemetry): State<Telemetry>) -> Response {
    match telemetry.render_metrics() {
        Ok(rendered) => {
            (StatusCode::OK, [(header::CONTENT_TYPE, PROMETHEUS_TEXT)], plain_headers(), rendered)
                .into_response()
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn text(code: StatusCode, body: String) -> Response {
    (code, plain_headers(), body).into_response()
}

/// What is true a moment ago is not worth keeping, and no browser should guess at a type.
fn plain_headers() -> [(HeaderName, &'static str); 2] {
    [(header::CACHE_CONTROL, "no-store"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")]
}
