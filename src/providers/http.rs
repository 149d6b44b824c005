//! HTTP requests within bounds: time, size, redirects.
//!
//! Whom they go to is decided by a [`Transport`]: [`Network`] outside of simulations. The users' servers are trusted as
//! the system's certificate store says (what `rustls-platform-verifier` reads, `SSL_CERT_FILE` included): Prometheus
//! behind a company's own authority is common, and its certificate is then in the image or mounted into it. TLS itself
//! is rustls with ring, as in the API client.

use std::fmt::Write as _;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
pub use reqwest::Url;

use crate::api::providers::Header;

/// The longest time that a user may give a request.
pub const LONGEST_TIMEOUT: Duration = Duration::from_secs(300);
/// Bytes of a response body: enough for thousands of series, and too little to hurt with every call under way.
pub const BODY_LIMIT: usize = 4 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const REDIRECTS: usize = 5;

/// What is asked.
#[derive(Clone)]
pub struct Request {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub basic_auth: Option<(String, String)>,
    pub body: Bytes,
    /// Do not verify the server's certificate.
    pub insecure: bool,
    /// For everything from the connection to the last byte of the body.
    pub timeout: Duration,
}

/// What is answered.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub body: Bytes,
}

/// Who carries requests.
pub trait Transport: Send + Sync {
    /// Sends a request and reads the whole answer, within the request's timeout and [`BODY_LIMIT`].
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, HttpError>>;
}

/// Why there is no answer. The words hold neither path nor query of the URL, which may hold secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    #[error("{origin} did not answer within {seconds} s")]
    Timeout { origin: String, seconds: u64 },
    #[error("the answer of {origin} is larger than {BODY_LIMIT} bytes")]
    TooLarge { origin: String },
    #[error("{origin}: {problem}")]
    Failed { origin: String, problem: String },
}

impl Request {
    pub fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            basic_auth: None,
            body: Bytes::new(),
            insecure: false,
            timeout: Duration::from_secs(30),
        }
    }

    /// Sends a form in the body.
    #[must_use]
    pub fn form(mut self, fields: &[(&str, &str)]) -> Self {
        self.headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        self.body = Bytes::from(encoded(fields));
        self
    }

    /// Adds headers that a user wrote; a later one of the same name wins.
    ///
    /// # Errors
    /// A name or a value that HTTP does not allow. The value is not shown.
    pub fn with_headers(mut self, headers: &[Header]) -> Result<Self, String> {
        for Header { key, value } in headers {
            let name: HeaderName = key.parse().map_err(|_| format!("{key:?} is not the name of a header"))?;
            let mut value: HeaderValue = value
                .parse()
                .map_err(|_| format!("the value of header {name} has characters that HTTP does not allow"))?;
            value.set_sensitive(true);
            self.headers.insert(name, value);
        }
        Ok(self)
    }

    fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }
}

/// `a=1&b=2`, with everything escaped that needs to be.
pub fn encoded(fields: &[(&str, &str)]) -> String {
    // A constant that is a URL.
    let mut url = Url::parse("http://form/").expect("is a URL");
    url.query_pairs_mut().extend_pairs(fields);
    url.query().unwrap_or_default().to_owned()
}

/// The seconds that a user gave a request, within bounds; `default` when there are none.
pub fn timeout(seconds: Option<i64>, default: Duration) -> Duration {
    match seconds.map(u64::try_from) {
        Some(Ok(seconds)) if seconds > 0 => Duration::from_secs(seconds).min(LONGEST_TIMEOUT),
        _ => default,
    }
}

/// The real network.
#[derive(Default)]
pub struct Network {
    // Made when first needed: reading the certificate store takes a while.
    verified: OnceLock<Result<reqwest::Client, String>>,
    unverified: OnceLock<Result<reqwest::Client, String>>,
}

impl Network {
    pub fn new() -> Self {
        Self::default()
    }

    fn client(&self, insecure: bool) -> Result<&reqwest::Client, String> {
        let client = if insecure {
            self.unverified.get_or_init(|| {
                let builder = builder().tls_danger_accept_invalid_certs(true);
                builder.build().map_err(|error| chain(&error))
            })
        } else {
            self.verified.get_or_init(|| {
                // An image without any certificates still serves plain HTTP; TLS then trusts nobody.
                let without_roots = |_| builder().tls_certs_only([]).build();
                builder().build().or_else(without_roots).map_err(|error| chain(&error))
            })
        };
        client.as_ref().map_err(Clone::clone)
    }

    async fn fetch(&self, request: Request) -> Result<Response, HttpError> {
        let origin = request.origin();
        let failed = |problem: String| HttpError::Failed { origin: origin.clone(), problem };
        let client = self.client(request.insecure).map_err(failed)?;
        let mut sent = client.request(request.method, request.url).headers(request.headers).body(request.body);
        if let Some((username, password)) = request.basic_auth {
            sent = sent.basic_auth(username, Some(password));
        }
        let mut response = sent.send().await.map_err(|error| failed(chain(&error.without_url())))?;
        let too_large = || HttpError::TooLarge { origin: origin.clone() };
        if response.content_length().is_some_and(|length| length > BODY_LIMIT as u64) {
            return Err(too_large());
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| failed(chain(&error.without_url())))? {
            if body.len() + chunk.len() > BODY_LIMIT {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Response { status: response.status().as_u16(), body: body.freeze() })
    }
}

impl Transport for Network {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, HttpError>> {
        let (origin, timeout) = (request.origin(), request.timeout);
        async move {
            let late = |_| HttpError::Timeout { origin, seconds: timeout.as_secs() };
            tokio::time::timeout(timeout, self.fetch(request)).await.map_err(late)?
        }
        .boxed()
    }
}

fn builder() -> reqwest::ClientBuilder {
    // Fails when there is one already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(Duration::from_secs(90))
        .pool_max_idle_per_host(4)
        .redirect(reqwest::redirect::Policy::limited(REDIRECTS))
        // The URL may hold a secret, which is none of the next server's business.
        .referer(false)
}

/// An error with its causes, each only once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            // Writing to a String cannot fail.
            let _ = write!(text, ": {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_timeout_stays_within_bounds() {
        let default = Duration::from_secs(10);
        for (seconds, bounded) in [(None, 10), (Some(0), 10), (Some(-3), 10), (Some(7), 7), (Some(86_400), 300)] {
            assert_eq!(timeout(seconds, default), Duration::from_secs(bounded), "{seconds:?}");
        }
    }

    #[test]
    fn forms_are_escaped() {
        assert_eq!(encoded(&[("query", "a{b=\"c\"}+1"), ("time", "1")]), "query=a%7Bb%3D%22c%22%7D%2B1&time=1");
    }

    #[test]
    fn a_header_that_http_does_not_allow_is_refused_without_its_value() {
        let request = || Request::new(Method::GET, Url::parse("http://x").unwrap());
        let header = |key: &str, value: &str| [Header { key: key.into(), value: value.into() }];
        assert_eq!(request().with_headers(&header("a b", "x")).err().unwrap(), "\"a b\" is not the name of a header");
        let error = request().with_headers(&header("token", "s3cret\n")).err().unwrap();
        assert_eq!(error, "the value of header token has characters that HTTP does not allow");
        let request = request().with_headers(&header("X-Token", "s3cret")).ok().unwrap();
        assert!(!format!("{:?}", request.headers).contains("s3cret"));
    }
}
