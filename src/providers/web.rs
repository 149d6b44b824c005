//! Any HTTP API: the value is what a JSONPath finds in its answer, or the answer's text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{HeaderValue, Method, header};
use serde_json::Value;

use super::http::{Request, Url};
use super::jsonpath::JsonPath;
use super::{Answer, Call, Found, Provider, Reading, http as bounded, oauth};
use crate::analysis::expr;
use crate::analysis::metric::ProviderKind;
use crate::api::providers::Web as Settings;

const TIMEOUT: Duration = Duration::from_secs(10);
const WHOLE_BODY: &str = "{$}";

pub(super) struct Web;

impl Provider for Web {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Web
    }

    fn run<'a>(&'a self, call: Call<'a>, _number: i32) -> BoxFuture<'a, Answer> {
        fetch(call).boxed()
    }
}

async fn fetch(call: Call<'_>) -> Answer {
    let settings = call.task.metric.provider.web.as_ref().ok_or("provider.web is not set")?;
    let path = settings.json_path.clone().filter(|path| !path.is_empty());
    let parsed_path = JsonPath::parse(path.as_deref().unwrap_or(WHOLE_BODY)).map_err(|error| error.to_string())?;
    let mut request = request(settings)?;
    oauth::authorize(&mut request, settings.authentication.oauth2.as_ref(), call.services).await?;
    let insecure = request.insecure;
    let response = call.services.transport.send(request).await.map_err(|error| error.to_string())?;
    if response.status == 401 {
        oauth::refused(settings.authentication.oauth2.as_ref(), insecure, call.services);
    }
    if !(200..300).contains(&response.status) {
        return Err(format!("received non 2xx response code: {}", response.status));
    }
    Ok(Reading::Judge(Box::new(move || parse(&response.body, &parsed_path, path.is_some()))))
}

fn request(settings: &Settings) -> Result<Request, String> {
    let method = match settings.method.as_deref() {
        None | Some("" | "GET") => Method::GET,
        Some("POST") => Method::POST,
        Some("PUT") => Method::PUT,
        Some(other) => return Err(format!("method must be GET, POST or PUT, not {other:?}")),
    };
    let body = settings.body.as_deref().filter(|body| !body.is_empty());
    let json_body = settings.json_body.as_ref().filter(|body| !body.is_null());
    if body.is_some() && json_body.is_some() {
        return Err("use either Body or JSONBody; both cannot exists for WebMetric payload".to_owned());
    }
    if method == Method::GET && (body.is_some() || json_body.is_some()) {
        return Err("Body/JSONBody can only be used with POST or PUT WebMetric Method types".to_owned());
    }
    let url = Url::parse(&settings.url).map_err(|error| format!("url is not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("url is not an http or https URL".to_owned());
    }
    let mut request = Request::new(method, url).with_headers(&settings.headers)?;
    request.insecure = settings.insecure;
    request.timeout = bounded::timeout(settings.timeout_seconds, TIMEOUT);
    if let Some(json) = json_body {
        request.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request.body = Bytes::from(json.to_string());
    } else if let Some(body) = body {
        request.body = Bytes::from(body.to_owned());
    }
    Ok(request)
}

fn parse(body: &Bytes, path: &JsonPath, path_is_set: bool) -> Result<Found, String> {
    let metadata = BTreeMap::new();
    let Ok(json) = serde_json::from_slice::<Value>(body) else {
        if path_is_set {
            return Err("Could not find JSONPath in body: the body is not JSON".to_owned());
        }
        // Judged as a text: a page of an error is no success where a condition asks for something else.
        let text = String::from_utf8_lossy(body).into_owned();
        return Ok(Found { value: text.as_str().into(), text, no_data: false, metadata });
    };
    let results = path.find(&json).map_err(|error| format!("Could not find JSONPath in body: {error}"))?;
    let value = results.iter().flatten().next().ok_or("result of web metric produced no value")?;
    let mut text = String::new();
    print(value, &mut text);
    Ok(Found { value: expr::Value::from(value.as_ref()), text, no_data: value.is_null(), metadata })
}

/// JSON as Go's library prints what it has read: every number is a float, keys are sorted, and what HTML treats
/// specially is escaped. No deeper than the parser allows.
fn print(value: &Value, out: &mut String) {
    match value {
        Value::Number(number) => print_number(number.as_f64().unwrap_or(f64::NAN), out),
        Value::String(text) => print_string(text, out),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                print(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (index, (key, value)) in fields.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                print_string(key, out);
                out.push(':');
                print(value, out);
            }
            out.push('}');
        }
        Value::Null | Value::Bool(_) => out.push_str(&value.to_string()),
    }
}

fn print_number(number: f64, out: &mut String) {
    let magnitude = number.abs();
    // Writing to a String cannot fail.
    let _ = if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        let text = format!("{number:e}");
        match text.split_once('e') {
            Some((digits, exponent)) if !exponent.starts_with('-') => write!(out, "{digits}e+{exponent}"),
            _ => write!(out, "{text}"),
        }
    } else {
        write!(out, "{number}")
    };
}

fn print_string(text: &str, out: &mut String) {
    for character in Value::from(text).to_string().chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(body: &str, path: &str) -> Result<(String, bool), String> {
        let json_path = JsonPath::parse(if path.is_empty() { WHOLE_BODY } else { path }).unwrap();
        parse(&Bytes::copy_from_slice(body.as_bytes()), &json_path, !path.is_empty())
            .map(|found| (found.text, found.no_data))
    }

    #[test]
    fn a_value_is_printed_as_go_does() {
        for (body, path, text) in [
            ("{\"b\": 1.0, \"a\": [true, null]}", "", "{\"a\":[true,null],\"b\":1}"),
            ("1000000000000000000000", "", "1e+21"),
            ("100000000000000000000", "", "100000000000000000000"),
            ("0.0000015", "", "0.0000015"),
            ("1.5e-7", "", "1.5e-7"),
            ("9007199254740993", "", "9007199254740992"),
            ("-0.0", "", "-0"),
            ("\"a<b> & \\u2028\\u007f\\u0001\\n\"", "", "\"a\\u003cb\\u003e \\u0026 \\u2028\u{7f}\\u0001\\n\""),
            ("{\"data\": {\"ok\": true}}", "{$.data.ok}", "true"),
            ("{\"data\": [1, 2, 3]}", "{$.data[1:]}", "2"),
            ("up and running", "", "up and running"),
        ] {
            assert_eq!(parsed(body, path), Ok((text.to_owned(), false)), "{body}");
        }
        assert_eq!(parsed("null", ""), Ok(("null".to_owned(), true)));
    }

    #[test]
    fn a_path_that_finds_nothing_is_an_error() {
        for (body, path, problem) in [
            ("{\"a\": 1}", "{$.b}", "Could not find JSONPath in body"),
            ("<html>", "{$.b}", "Could not find JSONPath in body: the body is not JSON"),
            ("[]", "{$[*]}", "result of web metric produced no value"),
        ] {
            let error = parsed(body, path).unwrap_err();
            assert!(error.starts_with(problem), "{error}");
        }
    }

    #[test]
    fn a_body_needs_a_method_that_sends_one() {
        let request = |json: Value| request(&serde_json::from_value(json).unwrap()).map(|request| request.body);
        let url = "http://x/";
        assert_eq!(request(json!({"url": url, "method": "PUT", "body": "a"})), Ok("a".into()));
        assert_eq!(request(json!({"url": url, "method": "POST", "jsonBody": {"a": 1}})), Ok("{\"a\":1}".into()));
        for (settings, problem) in [
            (json!({"url": url, "body": "a"}), "Body/JSONBody can only be used with POST or PUT"),
            (json!({"url": url, "jsonBody": {}}), "Body/JSONBody can only be used with POST or PUT"),
            (json!({"url": url, "method": "POST", "body": "a", "jsonBody": {}}), "use either Body or JSONBody"),
            (json!({"url": url, "method": "DELETE"}), "method must be GET, POST or PUT, not \"DELETE\""),
            (json!({"url": "x"}), "url is not a URL"),
            (json!({"url": "file:///etc/passwd"}), "url is not an http or https URL"),
        ] {
            let error = request(settings).unwrap_err();
            assert!(error.starts_with(problem), "{error}");
        }
    }
}
