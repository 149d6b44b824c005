//! Plain HTTP requests to addresses inside the namespace.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;

/// A client that keeps connections open for the next request.
#[derive(Clone, Debug)]
pub struct Http {
    client: Client<HttpConnector, Empty<Bytes>>,
}

impl Default for Http {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Self { client }
    }
}

impl Http {
    /// GETs `url` and reads the whole answer, within `within`. A `host` replaces the one of the URL in the Host header.
    ///
    /// # Errors
    /// There is no answer, or not in time. An answer with any status is not an error.
    pub async fn get(&self, url: &str, host: Option<&str>, within: Duration) -> Result<Response<Bytes>> {
        let mut request = Request::get(url);
        if let Some(host) = host {
            request = request.header(hyper::header::HOST, host);
        }
        let request = request.body(Empty::new()).with_context(|| format!("building a request of {url}"))?;
        let exchange = async {
            let (head, body) = self.client.request(request).await?.into_parts();
            Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
        };
        timeout(within, exchange).await.with_context(|| format!("{url} did not answer within {within:?}"))?
    }

    /// GETs `url` and answers the body of a 200.
    ///
    /// # Errors
    /// There is no answer within five seconds, or another status.
    pub async fn body(&self, url: &str) -> Result<Bytes> {
        let response = self.get(url, None, Duration::from_secs(5)).await?;
        if response.status() != StatusCode::OK {
            bail!("{url} answered {}: {}", response.status(), String::from_utf8_lossy(response.body()));
        }
        Ok(response.into_body())
    }
}
