//! The two ways in for clients: a tower service in the process, and HTTP on a socket.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::json;
use tokio::net::TcpListener;

use super::http::{Body, answer, respond};
use super::{ApiServer, Shared};

impl ApiServer {
    /// A client of this server that needs no network. Must be called within a tokio runtime.
    pub fn client(&self, namespace: &str) -> kube::Client {
        kube::Client::new(self.clone(), namespace)
    }

    /// The same for a client that says who it is, so that faults can tell several apart.
    /// A name that no header can have is left out.
    pub fn client_of(&self, namespace: &str, user_agent: &str) -> kube::Client {
        let name = http::HeaderValue::from_str(user_agent).ok();
        let named =
            tower::util::MapRequest::new(self.clone(), move |mut request: http::Request<kube::client::Body>| {
                request.headers_mut().extend(name.clone().map(|name| (http::header::USER_AGENT, name)));
                request
            });
        kube::Client::new(named, namespace)
    }

    /// Serves the API over plain HTTP. Port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn serve(&self, address: SocketAddr) -> std::io::Result<Serving> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let router = axum::Router::new().fallback_service(Network(self.clone()));
        let task = tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Serving { address, task })
    }
}

/// A server that listens. It stops when this is dropped.
#[derive(Debug)]
pub struct Serving {
    address: SocketAddr,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Serving {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A kubeconfig that leads here.
    pub fn kubeconfig(&self, namespace: &str) -> String {
        kubeconfig(&format!("http://{}", self.address), namespace)
    }

    /// Serves until the listener fails.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn wait(mut self) -> std::io::Result<()> {
        (&mut self.task).await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A kubeconfig for a server without authentication, as kubectl and kube read it.
pub fn kubeconfig(server: &str, namespace: &str) -> String {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "sandbox", "cluster": {"server": server}}],
        "users": [{"name": "sandbox", "user": {}}],
        "contexts": [
            {"name": "sandbox", "context": {"cluster": "sandbox", "user": "sandbox", "namespace": namespace}},
        ],
        "current-context": "sandbox",
    });
    // JSON is YAML.
    format!("{config:#}\n")
}

impl<B> tower::Service<http::Request<B>> for ApiServer
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<tower::BoxError>,
{
    type Response = http::Response<Body>;
    type Error = std::io::Error;
    type Future = BoxFuture<'static, std::io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let shared: Arc<Shared> = self.shared.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map_err(|error| std::io::Error::other(error.into()))?;
            answer(shared, parts, body.to_bytes()).await
        })
    }
}

/// The service as axum wants it: a broken connection is an answer whose body fails at once.
#[derive(Clone)]
struct Network(ApiServer);

impl tower::Service<axum::extract::Request> for Network {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: axum::extract::Request) -> Self::Future {
        let answered = tower::Service::call(&mut self.0, request);
        Box::pin(async move {
            Ok(answered.await.unwrap_or_else(|error| {
                let broken = futures::stream::once(async { Err::<Frame<Bytes>, _>(error) });
                respond(200, StreamBody::new(broken).boxed_unsync())
            }))
        })
    }
}
