//! A proxy before the API server that refuses a share of all calls, as an API server does that is overloaded or half broken.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::HOST;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// What an API server answers when it cannot do what it is asked now: too many requests, an internal error, not available.
const REFUSALS: [StatusCode; 3] =
    [StatusCode::TOO_MANY_REQUESTS, StatusCode::INTERNAL_SERVER_ERROR, StatusCode::SERVICE_UNAVAILABLE];

/// A running proxy. Dropping it ends it.
pub struct Refusing {
    url: String,
    shared: Arc<Shared>,
    _task: JoinSet<()>,
}

struct Shared {
    client: Client,
    state: Mutex<State>,
}

struct State {
    random: fastrand::Rng,
    /// 0 to 1
    share: f64,
    refused: usize,
}

impl Refusing {
    /// Starts a proxy that passes everything on, as the user of `client`.
    ///
    /// # Errors
    /// It cannot listen.
    pub async fn start(client: Client, seed: u64) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listening for a proxy")?;
        let url = format!("http://{}", listener.local_addr().context("the address of a proxy")?);
        let state = State { random: fastrand::Rng::with_seed(seed), share: 0.0, refused: 0 };
        let shared = Arc::new(Shared { client, state: Mutex::new(state) });
        let mut task = JoinSet::new();
        task.spawn(serve(listener, shared.clone()));
        Ok(Self { url, shared, _task: task })
    }

    /// From now on this share of all calls, 0 to 1, is refused.
    pub fn refuse(&self, share: f64) {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).share = share;
    }

    /// How many calls were refused.
    pub fn refused(&self) -> usize {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).refused
    }

    /// Writes a kubeconfig file that leads to the proxy.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn kubeconfig(&self, folder: &Path) -> Result<PathBuf> {
        let file = folder.join("refusing.kubeconfig");
        let content = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "e2e",
            "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": "e2e"}}],
            "clusters": [{"name": "e2e", "cluster": {"server": self.url}}],
            "users": [{"name": "e2e", "user": {}}],
        });
        std::fs::write(&file, content.to_string()).with_context(|| format!("writing {}", file.display()))?;
        Ok(file)
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            Ok((stream, _)) = listener.accept() => stream,
            Some(_) = connections.join_next() => continue,
        };
        let shared = shared.clone();
        let service = service_fn(move |request| {
            let shared = shared.clone();
            async move { Ok::<_, Infallible>(shared.answer(request).await) }
        });
        connections.spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        if let Some(status) = self.refusal() {
            return refuse(status, "refused by the test");
        }
        self.pass(request).await.unwrap_or_else(|error| refuse(StatusCode::BAD_GATEWAY, &format!("{error:#}")))
    }

    async fn pass(&self, request: Request<Incoming>) -> Result<Response<Body>> {
        let (mut head, body) = request.into_parts();
        // The client puts its own.
        head.headers.remove(HOST);
        let body = body.collect().await?.to_bytes().to_vec();
        Ok(self.client.send(Request::from_parts(head, body.into())).await?)
    }

    fn refusal(&self) -> Option<StatusCode> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.random.f64() >= state.share {
            return None;
        }
        state.refused += 1;
        Some(REFUSALS[state.refused % REFUSALS.len()])
    }
}

fn refuse(status: StatusCode, message: &str) -> Response<Body> {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": "Refused", "code": status.as_u16(),
    });
    let mut answer = Response::new(Body::from(body.to_string().into_bytes()));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    answer
}
