//! Providers against real servers on loopback: what they are sent, and what follows from answers of every kind.

mod jobs;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use ::http::{HeaderMap, Method, StatusCode, Uri};
use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::http::{BODY_LIMIT, Network};
use super::*;
use crate::analysis::machine::{RunWorld, secret_refs, tasks};
use crate::analysis::secrets::Secrets;
use AnalysisPhase::{Error, Failed, Inconclusive, Running, Successful};

const UID: &str = "0b6bd1f1-3d7f-4b9c-9d5e-1f2a3b4c5d6e";

/// What a server was sent.
#[derive(Clone, Debug)]
struct Seen {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: String,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

type Answers = dyn Fn(&Seen) -> Response + Send + Sync;
type ServerState = (Arc<Mutex<Vec<Seen>>>, Arc<Answers>);

/// An HTTP server that records what it is asked.
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    async fn new(answers: impl Fn(&Seen) -> Response + Send + Sync + 'static) -> Self {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let answers: Arc<Answers> = Arc::new(answers);
        let state = (seen.clone(), answers);
        let serve = |State((seen, answers)): State<ServerState>, request: Request| async move {
            let (parts, body) = request.into_parts();
            let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
            let request = Seen { method: parts.method, uri: parts.uri, headers: parts.headers, body };
            seen.lock().unwrap().push(request.clone());
            answers(&request)
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(serve).with_state(state);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, seen }
    }

    /// Always the same.
    async fn answering(status: u16, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self::new(move |_| (StatusCode::from_u16(status).unwrap(), body.clone()).into_response()).await
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// A server that answers the bytes and then does as told.
fn raw_server(bytes: Vec<u8>, then_hang: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(&bytes);
        if then_hang {
            // Until the client goes away.
            let _ = stream.read(&mut [0; 1]);
        }
    });
    address
}

fn providers_with(client: kube::Client, prometheus: Option<String>) -> Providers {
    let jobs = JobTarget { client, namespace: None, other_cluster: false };
    Providers::new(Arc::new(Network::new()), jobs, Clock::system(), prometheus)
}

fn client_of(url: &str) -> kube::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    kube::Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap()
}

/// No API server is there.
fn providers() -> Providers {
    providers_with(client_of("http://127.0.0.1:1"), None)
}

fn world(spec: Value) -> RunWorld {
    let run = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "AnalysisRun",
        "metadata": {"name": "run", "namespace": "ns", "uid": UID},
        "spec": spec,
    });
    let run = Arc::new(serde_json::from_value(run).unwrap());
    RunWorld { now: Timestamp::UNIX_EPOCH, run, secrets: Secrets::default(), weight: None }
}

/// One measurement of a metric with this provider and conditions.
async fn measured(providers: &Providers, provider: Value, conditions: Value) -> Outcome {
    let mut metric = json!({"name": "m", "provider": provider});
    for (key, value) in conditions.as_object().unwrap() {
        metric[key] = value.clone();
    }
    outcome(providers, &world(json!({"metrics": [metric]}))).await
}

async fn outcome(providers: &Providers, world: &RunWorld) -> Outcome {
    let mut outcomes = providers.carry_out(tasks(world)).await;
    assert_eq!(outcomes.len(), 1);
    outcomes.remove(0)
}

async fn asked_prometheus(settings: Value, success: &str) -> Measurement {
    let conditions = json!({"successCondition": success});
    measured(&providers(), json!({"prometheus": settings}), conditions).await.measurement().clone()
}

fn vector(values: &[&str]) -> Value {
    let result: Vec<Value> =
        values.iter().map(|value| json!({"metric": {"pod": "a"}, "value": [1.5, value]})).collect();
    json!({"status": "success", "data": {"resultType": "vector", "result": result}})
}

#[test]
fn every_supported_kind_has_one_provider() {
    let mut kinds: Vec<ProviderKind> = PROVIDERS.iter().map(|provider| provider.kind()).collect();
    kinds.sort();
    assert_eq!(kinds, [ProviderKind::Prometheus, ProviderKind::Web, ProviderKind::Job]);
    assert!(kinds.iter().all(|kind| kind.supported()));
}

#[tokio::test]
async fn prometheus_is_asked_by_form_and_its_values_are_judged() {
    for (values, condition, phase, text) in [
        (&["0.01"][..], "result[0] < 0.05", Successful, "[0.01]"),
        (&["0.07"][..], "result[0] < 0.05", Failed, "[0.07]"),
        (&["1", "2"][..], "all(result, # < 3)", Successful, "[1,2]"),
        (&["NaN"][..], "result[0] < 0.05", Failed, "[NaN]"),
        (&["NaN"][..], "isNaN(result[0]) || result[0] < 0.05", Successful, "[NaN]"),
        (&["+Inf"][..], "result[0] < 0.05", Failed, "[+Inf]"),
        (&["-1"][..], "result[0] < 0.05", Successful, "[-1]"),
        (&[][..], "len(result) == 0 || result[0] < 1", Successful, "[]"),
    ] {
        let server = Server::answering(200, vector(values).to_string()).await;
        let settings = json!({"address": server.url("/prom/"), "query": "up{a=\"b\"} + 1"});
        let measurement = asked_prometheus(settings, condition).await;
        assert_eq!((measurement.phase, measurement.value.as_str()), (phase, text), "{condition}");
        assert!(measurement.started_at.is_some() && measurement.finished_at >= measurement.started_at);
        let seen = server.seen();
        assert_eq!((seen.len(), &seen[0].method, seen[0].uri.path()), (1, &Method::POST, "/prom/api/v1/query"));
        assert!(seen[0].body.starts_with("query=up%7Ba%3D%22b%22%7D+%2B+1&time="), "{}", seen[0].body);
        assert_eq!(seen[0].header("content-type"), "application/x-www-form-urlencoded");
    }
}

#[tokio::test]
async fn no_data_is_an_error_and_no_verdict() {
    let server = Server::answering(200, vector(&[]).to_string()).await;
    let measurement = asked_prometheus(json!({"address": server.url(""), "query": "up"}), "result[0] < 0.05").await;
    assert_eq!(measurement.phase, Error);
    assert!(measurement.message.starts_with("the provider returned no data: "), "{}", measurement.message);
    assert_eq!(measurement.value, "[]");
}

#[tokio::test]
async fn a_scalar_is_a_number_and_warnings_are_kept() {
    let body = json!({
        "status": "success", "warnings": ["partial", "slow"],
        "data": {"resultType": "scalar", "result": [1, "7"]},
    });
    let server = Server::answering(200, body.to_string()).await;
    let providers = providers_with(client_of("http://127.0.0.1:1"), Some(server.url("")));
    let provider = json!({"prometheus": {"query": "scalar(x)"}});
    let outcome = measured(&providers, provider, json!({"failureCondition": "result > 5"})).await;
    let measurement = outcome.measurement();
    assert_eq!((measurement.phase, measurement.value.as_str()), (Failed, "7"));
    assert_eq!(measurement.metadata["warnings"], "\"partial\", \"slow\"");
    assert!(format!("{outcome:?}").contains("\"ResolvedPrometheusQuery\": \"scalar(x)\""));
}

#[tokio::test]
async fn a_range_is_asked_for_where_there_is_one() {
    let body = json!({"status": "success", "data": {"resultType": "matrix", "result": [
        {"metric": {}, "values": [[1, "1"], [2, "2"]]},
    ]}});
    let server = Server::answering(200, body.to_string()).await;
    let range = json!({"start": "now() - duration(\"1m\")", "end": "now()", "step": "15s"});
    let settings = json!({"address": server.url(""), "query": "up", "rangeQuery": range});
    let measurement = asked_prometheus(settings, "max(result) == 2").await;
    assert_eq!((measurement.phase, measurement.value.as_str()), (Successful, "[1,2]"));
    let seen = server.seen();
    assert_eq!(seen[0].uri.path(), "/api/v1/query_range");
    assert!(seen[0].body.ends_with("&step=15"), "{}", seen[0].body);
}

#[tokio::test]
async fn a_gateway_that_allows_get_only_is_asked_by_get() {
    let server = Server::new(|seen| {
        if seen.method == Method::POST {
            StatusCode::METHOD_NOT_ALLOWED.into_response()
        } else {
            vector(&["1"]).to_string().into_response()
        }
    })
    .await;
    let measurement = asked_prometheus(json!({"address": server.url(""), "query": "a b"}), "result[0] == 1").await;
    assert_eq!(measurement.phase, Successful);
    assert!(server.seen()[1].uri.query().unwrap().starts_with("query=a+b&time="));
}

#[tokio::test]
async fn what_goes_wrong_is_an_error_that_names_it() {
    let bad_query = json!({"status": "error", "errorType": "bad_data", "error": "parse error: unexpected end"});
    for (status, body, message) in [
        (400, bad_query.to_string(), "bad_data: parse error: unexpected end"),
        (404, "<html>".to_owned(), "client_error: client error: 404"),
        (500, "oops".to_owned(), "server_error: server error: 500"),
        (503, "<html>".to_owned(), "server_error: server error: 503"),
        (200, "<html>".to_owned(), "bad_response: the answer is not one of Prometheus: "),
        (200, bad_query.to_string(), "bad_data: parse error: unexpected end"),
        (204, String::new(), "bad_response: the answer is not one of Prometheus: "),
    ] {
        let server = Server::answering(status, body).await;
        let measurement = asked_prometheus(json!({"address": server.url(""), "query": "up"}), "true").await;
        assert_eq!(measurement.phase, Error);
        assert!(measurement.message.starts_with(message), "{}", measurement.message);
        assert!(measurement.finished_at.is_some());
    }
    let measurement = asked_prometheus(json!({"address": "http://127.0.0.1:1/secret", "query": "up"}), "true").await;
    assert!(measurement.message.starts_with("http://127.0.0.1:1: "), "{}", measurement.message);
    assert!(measurement.message.contains("refused"), "{}", measurement.message);
    let measurement = asked_prometheus(json!({"query": "up"}), "true").await;
    assert!(measurement.message.starts_with("prometheus address is not configured"), "{}", measurement.message);
}

fn outcome_is(outcome: &Outcome, phase: AnalysisPhase, message: &str) -> bool {
    (outcome.measurement().phase, outcome.measurement().message.as_str()) == (phase, message)
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up_after_the_users_timeout() {
    for bytes in [Vec::new(), b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{".to_vec()] {
        let address = raw_server(bytes, true);
        let began = Instant::now();
        let web = json!({"web": {"url": format!("http://{address}/x?key=s3cret"), "timeoutSeconds": 1}});
        let outcome = measured(&providers(), web, json!({})).await;
        let message = format!("http://{address} did not answer within 1 s");
        assert!(outcome_is(&outcome, Error, &message), "{outcome:?}");
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error() {
    let address = raw_server(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n1".to_vec(), false);
    let outcome = measured(&providers(), json!({"web": {"url": format!("http://{address}/")}}), json!({})).await;
    assert_eq!(outcome.measurement().phase, Error);
    assert!(outcome.measurement().message.starts_with(&format!("http://{address}: ")), "{outcome:?}");
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_refused_whether_it_says_so_or_not() {
    let told = Server::answering(200, vec![b'1'; BODY_LIMIT + 1]).await.address;
    let mut bytes = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..(BODY_LIMIT >> 16) + 1 {
        bytes.extend_from_slice(b"10000\r\n");
        bytes.extend(std::iter::repeat_n(b'1', 1 << 16));
        bytes.extend_from_slice(b"\r\n");
    }
    let untold = raw_server(bytes, true);
    for address in [told, untold] {
        let outcome = measured(&providers(), json!({"web": {"url": format!("http://{address}/")}}), json!({})).await;
        let message = format!("the answer of http://{address} is larger than 4194304 bytes");
        assert!(outcome_is(&outcome, Error, &message), "{address}");
    }
    let largest = Server::answering(200, format!("\"{}\"", "1".repeat(BODY_LIMIT - 2))).await;
    let condition = json!({"successCondition": "len(result) == 4194302"});
    let outcome = measured(&providers(), json!({"web": {"url": largest.url("/")}}), condition).await;
    assert_eq!(outcome.measurement().phase, Successful);
    assert!(outcome.measurement().value.len() < 10_000, "what is stored is cut");
}

#[tokio::test]
async fn redirects_are_followed_a_few_times_and_tell_nobody_where_from() {
    let target = Server::answering(200, "42").await;
    let location = target.url("/there");
    let once = Server::new(move |_| (StatusCode::FOUND, [("location", location.clone())]).into_response()).await;
    let web = json!({"web": {"url": once.url("/?key=s3cret")}});
    let outcome = measured(&providers(), web, json!({"successCondition": "result == 42"})).await;
    assert_eq!(outcome.measurement().phase, Successful);
    assert_eq!(target.seen()[0].header("referer"), "");

    let forever = Server::new(|_| (StatusCode::FOUND, [("location", "/again?key=s3cret")]).into_response()).await;
    let outcome = measured(&providers(), json!({"web": {"url": forever.url("/")}}), json!({})).await;
    assert_eq!(outcome.measurement().phase, Error);
    assert!(outcome.measurement().message.contains("redirect"), "{outcome:?}");
    assert!(!outcome.measurement().message.contains("s3cret"), "{outcome:?}");
    assert_eq!(forever.seen().len(), 6);
}

#[tokio::test]
async fn the_web_provider_sends_what_it_is_told_and_reads_by_path() {
    let server = Server::answering(200, "{\"data\": {\"errors\": [0.5, 2]}}").await;
    let web = json!({"web": {
        "url": server.url("/measure?a=1"), "method": "POST", "jsonBody": {"q": [1]}, "jsonPath": "{$.data.errors[1]}",
        "headers": [{"key": "X-Team", "value": "shop"}],
    }});
    let outcome = measured(&providers(), web, json!({"failureCondition": "result > 1"})).await;
    assert_eq!((outcome.measurement().phase, outcome.measurement().value.as_str()), (Failed, "2"));
    let seen = server.seen();
    assert_eq!((&seen[0].method, seen[0].uri.to_string().as_str()), (&Method::POST, "/measure?a=1"));
    assert_eq!((seen[0].body.as_str(), seen[0].header("x-team")), ("{\"q\":[1]}", "shop"));
    assert_eq!(seen[0].header("content-type"), "application/json");

    for (status, body, condition, phase, message) in [
        (500, "true", "result", Error, "received non 2xx response code: 500"),
        (404, "true", "result", Error, "received non 2xx response code: 404"),
        (200, "true", "result", Successful, ""),
        (200, "all good", "result contains 'good'", Successful, ""),
        (200, "<html>sorry</html>", "result == 'ok'", Failed, ""),
    ] {
        let server = Server::answering(status, body).await;
        let condition = json!({"successCondition": condition});
        let outcome = measured(&providers(), json!({"web": {"url": server.url("/")}}), condition).await;
        assert!(outcome_is(&outcome, phase, message), "{body}: {outcome:?}");
    }
}

#[tokio::test]
async fn secrets_go_to_the_server_and_nowhere_else() {
    let server = Server::new(|seen| {
        let echo = format!("bad key {} at {}", seen.header("x-key"), seen.uri);
        (StatusCode::BAD_REQUEST, json!({"status": "error", "errorType": "bad_data", "error": echo}).to_string())
            .into_response()
    })
    .await;
    let mut world = world(json!({
        "metrics": [{"name": "m", "provider": {"prometheus": {
            "address": server.url("/{{args.key}}"),
            "query": "up{key=\"{{args.key}}\"}",
            "headers": [{"key": "X-Key", "value": "{{args.key}}"}],
            "authentication": {"basicAuth": {"username": "u", "password": "{{args.key}}"}},
        }}}],
        "args": [{"name": "key", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
    }));
    for reference in secret_refs(world.now, &world.run) {
        world.secrets.insert(&reference, Ok("s3 cret".to_owned()));
    }
    let outcome = outcome(&providers(), &world).await;
    let seen = server.seen();
    assert_eq!((seen[0].header("x-key"), seen[0].header("authorization")), ("s3 cret", "Basic dTpzMyBjcmV0"));
    assert_eq!(outcome.measurement().message, "bad_data: bad key ***** at /*****/api/v1/query");
    let everything = format!("{outcome:?}");
    assert!(everything.contains("up{key=\\\"*****\\\"}"), "{everything}");
    assert!(!everything.contains("s3 cret") && !everything.contains("s3%20cret"), "{everything}");
}

#[tokio::test]
async fn a_token_is_fetched_once_and_again_when_it_is_refused() {
    let tokens = Arc::new(AtomicUsize::new(0));
    let issued = tokens.clone();
    let server = Server::new(move |seen| {
        if seen.uri.path() == "/token" {
            // A server that knows the credentials in the body only.
            if !seen.body.contains("client_secret=s3cret") {
                return StatusCode::UNAUTHORIZED.into_response();
            }
            let token = format!("token-{}", issued.fetch_add(1, Ordering::SeqCst));
            return json!({"access_token": token, "expires_in": 3600}).to_string().into_response();
        }
        match seen.header("authorization") {
            "Bearer token-1" => "1".into_response(),
            _ => StatusCode::UNAUTHORIZED.into_response(),
        }
    })
    .await;
    let providers = providers();
    let oauth2 = json!({
        "tokenUrl": server.url("/token"), "clientId": "me", "clientSecret": "s3cret", "scopes": ["read", "more"],
    });
    let web = json!({"web": {"url": server.url("/metric"), "authentication": {"oauth2": oauth2}}});
    let phases = [Error, Successful, Successful];
    for phase in phases {
        let outcome = measured(&providers, web.clone(), json!({})).await;
        assert_eq!(outcome.measurement().phase, phase, "{outcome:?}");
    }
    assert_eq!(tokens.load(Ordering::SeqCst), 2);
    let seen = server.seen();
    assert_eq!(seen[0].header("authorization"), "Basic bWU6czNjcmV0");
    assert_eq!(seen[0].body, "grant_type=client_credentials&scope=read+more");

    let incomplete = json!({"web": {"url": server.url("/"), "authentication": {"oauth2": {"clientId": "me"}}}});
    let outcome = measured(&providers, incomplete, json!({})).await;
    let message = "missing mandatory parameter in metric for OAuth2 setup: tokenUrl";
    assert!(outcome_is(&outcome, Error, message), "{outcome:?}");
}

/// A TLS server with a certificate that nobody vouches for.
fn tls_server(answers: usize) -> SocketAddr {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let _ = rustls::crypto::ring::default_provider().install_default();
    let certificate = CertificateDer::from_pem_slice(include_bytes!("testdata/localhost.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("testdata/localhost.key.pem")).unwrap();
    let config =
        rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for _ in 0..answers {
            let (stream, _) = listener.accept().unwrap();
            let connection = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream);
            if stream.read(&mut [0; 4096]).is_ok() {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\n1");
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });
    address
}

#[tokio::test]
async fn a_certificate_is_verified_unless_the_user_says_otherwise() {
    let address = tls_server(2);
    let web =
        |insecure| json!({"web": {"url": format!("https://localhost:{}/", address.port()), "insecure": insecure}});
    let verified = measured(&providers(), web(false), json!({})).await;
    assert_eq!(verified.measurement().phase, Error);
    assert!(verified.measurement().message.to_lowercase().contains("certificate"), "{verified:?}");
    let unverified = measured(&providers(), web(true), json!({})).await;
    assert_eq!((unverified.measurement().phase, unverified.measurement().value.as_str()), (Successful, "1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_namespace_gets_more_than_its_places() {
    let under_way = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let counters = (under_way.clone(), most.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(move || {
        let (under_way, most) = counters.clone();
        async move {
            most.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(50)).await;
            under_way.fetch_sub(1, Ordering::SeqCst);
            "1"
        }
    });
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let metrics: Vec<Value> = (0..40)
        .map(|index| json!({"name": format!("m{index}"), "provider": {"web": {"url": format!("http://{address}/")}}}))
        .collect();
    let outcomes = providers().carry_out(tasks(&world(json!({"metrics": metrics})))).await;
    assert_eq!(outcomes.len(), 40);
    assert!(outcomes.iter().all(|outcome| outcome.measurement().phase == Successful), "{outcomes:?}");
    assert_eq!(most.load(Ordering::SeqCst), CALLS_OF_A_NAMESPACE);
}

#[tokio::test]
async fn a_condition_that_costs_too_much_ends_as_an_error() {
    let server = Server::answering(200, "1").await;
    let costly = "all(1..1000, all(1..1000, all(1..1000, # > 0)))";
    let condition = json!({"successCondition": costly});
    let outcome = measured(&providers(), json!({"web": {"url": server.url("/")}}), condition).await;
    assert_eq!(outcome.measurement().phase, Error, "{outcome:?}");
}
