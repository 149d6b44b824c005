//! Prometheus' HTTP API.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::Request;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::Response;
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::Frame;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{Prometheus, PrometheusFault, QueryError, parse};
use crate::sandbox::http::{Body, json_answer, respond};
use crate::sandbox::path::Params;

/// The longest form that is read, in bytes.
const LIMIT: usize = 1 << 20;

impl Prometheus {
    /// Serves `/api/v1/query` and `/api/v1/query_range`. Port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn serve(&self, address: SocketAddr) -> std::io::Result<PrometheusServing> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let router = axum::Router::new().fallback_service(Api(self.clone()));
        let task = tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(PrometheusServing { address, task })
    }

    async fn answer(&self, request: Request) -> Response<Body> {
        match self.fault() {
            PrometheusFault::Down => return broken(),
            PrometheusFault::Slow(time) => tokio::time::sleep(time).await,
            PrometheusFault::Code(code) => {
                let answer =
                    json!({"status": "error", "errorType": "internal", "error": "the sandbox was told to fail"});
                return json_answer(code, &answer, &[]);
            }
            _ => {}
        }
        let (parts, body) = request.into_parts();
        let form = Limited::new(body, LIMIT).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let query = parts.uri.query().unwrap_or_default();
        // Either may hold the parameters: clients send long queries as forms.
        let params = Params::parse(&format!("{query}&{}", String::from_utf8_lossy(&form)));
        let answer = match parts.uri.path() {
            "/api/v1/query" => self.instant(&params),
            "/api/v1/query_range" => self.range(&params),
            _ => return respond(404, crate::sandbox::http::whole("404 page not found\n".into())),
        };
        match answer {
            Ok(answer) => json_answer(200, &answer, &[]),
            Err(error) => {
                let code = if error.kind == "execution" { 422 } else { 400 };
                let answer = json!({"status": "error", "errorType": error.kind, "error": error.message});
                json_answer(code, &answer, &[])
            }
        }
    }

    fn instant(&self, params: &Params) -> Result<Value, QueryError> {
        let at = if params.text("time").is_empty() { self.shared.clock.now() } else { time(params, "time")? };
        self.query(params.text("query"), at)
    }

    fn range(&self, params: &Params) -> Result<Value, QueryError> {
        let step = params.text("step");
        let seconds = step.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let spelled = || Duration::try_from(jiff::SignedDuration::from_millis(parse::duration(step)?)).ok();
        let step = seconds.or_else(spelled).ok_or_else(|| {
            QueryError::bad_data(format!("invalid parameter \"step\": cannot parse {step:?} to a valid duration"))
        })?;
        self.query_range(params.text("query"), time(params, "start")?, time(params, "end")?, step)
    }
}

/// A time as seconds since 1970 or as RFC 3339.
fn time(params: &Params, name: &str) -> Result<Timestamp, QueryError> {
    let text = params.text(name);
    let seconds = text.parse::<f64>().ok();
    let unix = seconds.and_then(|seconds| Timestamp::from_millisecond((seconds * 1000.0).round() as i64).ok());
    unix.or_else(|| text.parse().ok()).ok_or_else(|| {
        QueryError::bad_data(format!("invalid parameter {name:?}: cannot parse {text:?} to a valid timestamp"))
    })
}

/// An answer that ends before it has begun, and the connection with it.
fn broken() -> Response<Body> {
    let error = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    respond(200, StreamBody::new(futures::stream::once(async { Err::<Frame<Bytes>, _>(error) })).boxed_unsync())
}

/// A Prometheus that listens. It stops when this is dropped.
#[derive(Debug)]
pub struct PrometheusServing {
    address: SocketAddr,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl PrometheusServing {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address that analysis templates take.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for PrometheusServing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Api(Prometheus);

impl tower::Service<Request> for Api {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let prometheus = self.0.clone();
        Box::pin(async move { Ok(prometheus.answer(request).await) })
    }
}
