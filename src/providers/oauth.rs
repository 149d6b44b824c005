//! Tokens by OAuth 2 client credentials, kept in memory while they are valid.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderValue, Method, header};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::Services;
use super::http::{Request, Url};
use crate::api::providers::OAuth2;

/// A token is not used in its last seconds: it must still be valid when it arrives.
const MARGIN: SignedDuration = SignedDuration::from_secs(10);
/// For how long a token is used whose end the server does not tell.
const UNLIMITED: i64 = 300;
/// Tokens that are remembered.
const TOKENS: usize = 256;

/// The tokens that are valid, by everything that they depend on.
#[derive(Default)]
pub(super) struct Tokens(Mutex<BTreeMap<Credentials, Token>>);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Credentials {
    url: String,
    id: String,
    secret: String,
    scope: String,
    insecure: bool,
}

struct Token {
    value: HeaderValue,
    expires: Timestamp,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    expires_in: Option<i64>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens")
    }
}

/// Adds the `Authorization` header that `oauth2` asks for, if it does.
///
/// # Errors
/// The settings are not complete, or the server gives no token. No secret is in the words.
pub(super) async fn authorize(
    request: &mut Request,
    oauth2: Option<&OAuth2>,
    services: &Services,
) -> Result<(), String> {
    let Some(credentials) = oauth2.map(|oauth2| Credentials::of(oauth2, request.insecure)).transpose()?.flatten()
    else {
        return Ok(());
    };
    let now = services.clock.now();
    let known = services.tokens.valid(&credentials, now);
    let value = match known {
        Some(value) => value,
        None => services.tokens.keep(credentials.clone(), fetch(&credentials, request.timeout, services).await?, now),
    };
    request.headers.insert(header::AUTHORIZATION, value);
    Ok(())
}

/// Forgets the token that a server refused, so that the next request asks for another.
pub(super) fn refused(oauth2: Option<&OAuth2>, insecure: bool, services: &Services) {
    if let Some(Ok(Some(credentials))) = oauth2.map(|oauth2| Credentials::of(oauth2, insecure)) {
        services.tokens.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&credentials);
    }
}

impl Credentials {
    /// `None` when nothing is set, as the API server writes an empty object back.
    fn of(oauth2: &OAuth2, insecure: bool) -> Result<Option<Self>, String> {
        if *oauth2 == OAuth2::default() {
            return Ok(None);
        }
        let field = |name: &str, value: &Option<String>| {
            let value = value.clone().filter(|value| !value.is_empty());
            value.ok_or_else(|| format!("missing mandatory parameter in metric for OAuth2 setup: {name}"))
        };
        Ok(Some(Self {
            url: field("tokenUrl", &oauth2.token_url)?,
            id: field("clientId", &oauth2.client_id)?,
            secret: field("clientSecret", &oauth2.client_secret)?,
            scope: oauth2.scopes.join(" "),
            insecure,
        }))
    }
}

impl Tokens {
    fn valid(&self, credentials: &Credentials, now: Timestamp) -> Option<HeaderValue> {
        let tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.get(credentials).filter(|token| token.expires > now).map(|token| token.value.clone())
    }

    fn keep(&self, credentials: Credentials, (value, seconds): (HeaderValue, i64), now: Timestamp) -> HeaderValue {
        let expires = now.checked_add(SignedDuration::from_secs(seconds) - MARGIN).unwrap_or(now);
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, token| token.expires > now);
        if tokens.len() < TOKENS {
            tokens.insert(credentials, Token { value: value.clone(), expires });
        }
        value
    }
}

/// Asks for a token: with the credentials in a header as the standard prefers, and when that is refused in the body.
async fn fetch(
    credentials: &Credentials,
    timeout: Duration,
    services: &Services,
) -> Result<(HeaderValue, i64), String> {
    let url = Url::parse(&credentials.url).map_err(|error| format!("oauth2.tokenUrl is not a URL: {error}"))?;
    let mut form = vec![("grant_type", "client_credentials")];
    if !credentials.scope.is_empty() {
        form.push(("scope", &credentials.scope));
    }
    let request = |form: &[(&str, &str)]| {
        let mut request = Request::new(Method::POST, url.clone()).form(form);
        request.timeout = timeout;
        request.insecure = credentials.insecure;
        request
    };
    let mut with_header = request(&form);
    // The standard wants them escaped as in a form.
    let escaped = |text: &str| super::http::encoded(&[("", text)])[1..].to_owned();
    with_header.basic_auth = Some((escaped(&credentials.id), escaped(&credentials.secret)));
    let failed = |error: super::http::HttpError| format!("oauth2: no token: {error}");
    let mut response = services.transport.send(with_header).await.map_err(failed)?;
    if matches!(response.status, 400 | 401 | 403) {
        form.extend([("client_id", credentials.id.as_str()), ("client_secret", credentials.secret.as_str())]);
        response = services.transport.send(request(&form)).await.map_err(failed)?;
    }
    if !(200..300).contains(&response.status) {
        return Err(format!("oauth2: no token: {} answered {}", url.origin().ascii_serialization(), response.status));
    }
    // What is wrong with the answer is not quoted: it may hold the token.
    let unreadable = || format!("oauth2: the answer of {} holds no access_token", url.origin().ascii_serialization());
    let token: TokenAnswer = serde_json::from_slice(&response.body).map_err(|_| unreadable())?;
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.access_token)).map_err(|_| unreadable())?;
    value.set_sensitive(true);
    Ok((value, token.expires_in.unwrap_or(UNLIMITED).clamp(0, 86_400)))
}
