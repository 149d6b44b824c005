//! From an HTTP request to an answer: the one code path for clients in the process and over the network.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::request::Parts;
use http::{HeaderValue, Method, Response, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};

use super::delete::{DeleteOptions, Deleted, Propagation, delete};
use super::faults::{Call, Fault};
use super::patch::Patch;
use super::path::{Params, ResourcePath, Route};
use super::read::{Query, list};
use super::selector::{FieldSelector, LabelSelector};
use super::state::State;
use super::status::{self, FieldError, Refusal};
use super::table::{View, table};
use super::watch::{Watch, WatchQuery};
use super::write::{self, FieldValidation, Sub, Target, WriteOptions, Written};
use super::{Shared, builtin, discovery, subresource};

/// The body of an answer: complete, or a stream of watch events.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Answers a request. An error means that the connection broke.
pub(super) async fn answer(shared: Arc<Shared>, parts: Parts, body: Bytes) -> std::io::Result<Response<Body>> {
    let path = match Route::parse(parts.uri.path()) {
        Route::Resource(path) => path,
        Route::Other(segments) => {
            let state = shared.lock();
            let answer = discovery::answer(&state, &parts, &segments);
            return Ok(answer.unwrap_or_else(|| refused(&status::no_such_path())));
        }
    };
    let params = Params::parse(parts.uri.query().unwrap_or_default());
    let call = Arc::new(call(&parts, &path, &params, &body));
    if let Some(refusal) = suffer(shared.faults().before(&call)).await? {
        return Ok(refused(&refusal));
    }
    let request = Request { shared: &shared, parts: &parts, params: &params, call: &call, body };
    let mut answer = request.carry_out(&path).unwrap_or_else(|refusal| refused(&refusal));
    if call.resource == "endpoints" {
        let warning = r#"299 - "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice""#;
        answer.headers_mut().append(header::WARNING, HeaderValue::from_static(warning));
    }
    let faults = shared.faults();
    faults.answered(&call, answer.status().as_u16());
    Ok(match suffer(faults.after(&call)).await? {
        Some(refusal) => refused(&refusal),
        None => answer,
    })
}

fn call(parts: &Parts, path: &ResourcePath, params: &Params, body: &Bytes) -> Call {
    let one = !path.name.is_empty();
    let watches = params.flag("watch");
    let verb = match parts.method {
        Method::GET if watches => "watch",
        Method::GET if one => "get",
        Method::GET => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH if content_type(parts).starts_with("application/apply-patch") => "apply",
        Method::PATCH => "patch",
        Method::DELETE if one => "delete",
        Method::DELETE => "deletecollection",
        _ => "",
    };
    let user_agent = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    Call {
        verb,
        resource: builtin::key(&path.plural, &path.group),
        subresource: path.subresource.clone(),
        namespace: path.namespace.clone(),
        name: path.name.clone(),
        user_agent: user_agent.unwrap_or_default().to_owned(),
        body: body.clone(),
    }
}

async fn suffer(fault: Fault) -> std::io::Result<Option<Refusal>> {
    match fault {
        Fault::None => Ok(None),
        Fault::Refuse(refusal) => Ok(Some(refusal)),
        Fault::Delay(time) => {
            tokio::time::sleep(time).await;
            Ok(None)
        }
        Fault::Break => Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)),
        Fault::Hang => std::future::pending().await,
    }
}

struct Request<'a> {
    shared: &'a Arc<Shared>,
    parts: &'a Parts,
    params: &'a Params,
    call: &'a Arc<Call>,
    body: Bytes,
}

impl Request<'_> {
    fn carry_out(&self, path: &ResourcePath) -> Result<Response<Body>, Refusal> {
        let mut state = self.shared.lock();
        let resource = state.resource(&self.call.resource).cloned().ok_or_else(status::no_such_path)?;
        if resource.version(&path.version).is_none() {
            return Err(status::no_such_path());
        }
        let target = Target {
            resource,
            version: path.version.clone(),
            namespace: path.namespace.clone(),
            name: path.name.clone(),
            sub: if path.subresource == "status" { Sub::Status } else { Sub::Whole },
        };
        if !target.namespace.is_empty() && !target.resource.namespaced {
            return Err(status::no_such_path());
        }
        let served = target.version();
        match path.subresource.as_str() {
            "status" if !served.is_some_and(|version| version.status) => {
                return Err(match target.resource.custom {
                    true => status::not_found(&target.resource, &target.name),
                    false => status::no_such_path(),
                });
            }
            "scale" if served.is_none_or(|version| version.scale.is_none()) => return Err(status::no_such_path()),
            _ => {}
        }
        if target.name.is_empty() && matches!(self.call.verb, "update" | "patch" | "apply") {
            return Err(status::method_not_allowed());
        }
        self.check_options()?;
        match (self.call.verb, path.subresource.as_str()) {
            ("get", "" | "status") => self.show(&target, &target.existing(&state)?, 200, &[]),
            ("list", "") => self.list(&state, &target),
            ("watch", "") => {
                drop(state);
                self.watch(target)
            }
            ("create", "") if target.name.is_empty() => {
                let written = write::create(&mut state, &target, self.object()?, &self.write_options())?;
                self.written(&target, &written)
            }
            ("update", "" | "status") => self.update(&mut state, &target),
            ("patch" | "apply", "" | "status") => self.patch(&mut state, &target),
            ("delete", "") => self.delete(&mut state, &target),
            ("deletecollection", "") => self.delete_collection(&mut state, &target),
            (_, "scale") => self.scale(&mut state, &target),
            ("create", "eviction") if &*target.resource.key == "pods" => {
                let evicted = subresource::evict(&mut state, &target, &self.object()?, self.shared.clock.now())?;
                Ok(json_answer(201, &evicted, &[]))
            }
            ("create", "binding") if &*target.resource.key == "pods" => {
                let bound = subresource::bind(&mut state, &target, &self.object()?, self.shared.clock.now())?;
                Ok(json_answer(201, &bound, &[]))
            }
            (_, "" | "status") => Err(status::method_not_allowed()),
            _ => Err(status::no_such_path()),
        }
    }

    /// Refuses parameters that no request of this kind may have.
    fn check_options(&self) -> Result<(), Refusal> {
        let of = match self.call.verb {
            "create" => "CreateOptions",
            "update" => "UpdateOptions",
            "patch" | "apply" => "PatchOptions",
            _ => return Ok(()),
        };
        let manager = self.params.text("fieldManager");
        if self.call.verb == "apply" && manager.is_empty() {
            return Err(status::bad_options(of, FieldError::required("fieldManager", "is required for apply patch")));
        }
        if self.call.verb == "patch" && self.params.flag("force") {
            let error = FieldError::forbidden("force", "may not be specified for non-apply patch");
            return Err(status::bad_options(of, error));
        }
        if manager.len() > 128 {
            return Err(status::bad_options(of, FieldError::too_long("fieldManager", 128)));
        }
        Ok(())
    }

    fn list(&self, state: &State, target: &Target) -> Result<Response<Body>, Refusal> {
        let page = list(state, target, &self.query(target)?)?;
        let view = self.view();
        let now = self.shared.clock.now();
        let mut meta = json!({"resourceVersion": page.revision.to_string()});
        // Whole lists of custom resources are untyped: the server writes what is empty, too.
        let untyped = target.resource.custom && view == View::Whole;
        if let Some(token) = page.continue_token.or(untyped.then(String::new)) {
            meta["continue"] = token.into();
        }
        if let Some(remaining) = page.remaining {
            meta["remainingItemCount"] = remaining.into();
        }
        if let View::Table(include) = view {
            return Ok(json_answer(200, &table(target, &page.items, include, &meta, now), &[]));
        }
        let (kind, api_version) = match view {
            View::Whole => (target.resource.list_kind.clone(), target.resource.api_version(&target.version)),
            View::Metadata | View::Table(_) => ("PartialObjectMetadataList".into(), "meta.k8s.io/v1".into()),
        };
        let items: Vec<Arc<Value>> = page.items.iter().map(|item| view.object(target, item, now)).collect();
        let typed = target.resource.custom || view != View::Whole;
        Ok(list_answer(&kind, &api_version, &meta, &items, typed))
    }

    fn watch(&self, target: Target) -> Result<Response<Body>, Refusal> {
        let query = WatchQuery {
            query: self.query(&target)?,
            bookmarks: self.params.flag("allowWatchBookmarks"),
            timeout: self.params.number("timeoutSeconds").filter(|s| *s > 0).map(Duration::from_secs),
            initial_events: self.params.flag("sendInitialEvents"),
        };
        let watch = Watch::start(self.shared.clone(), target, self.call.clone(), query, self.view())?;
        let lines = stream::unfold(watch, |mut watch| async move {
            let line = watch.next().await?;
            Some((Ok(Frame::data(line)), watch))
        });
        Ok(respond(200, StreamBody::new(lines).boxed_unsync()))
    }

    fn update(&self, state: &mut State, target: &Target) -> Result<Response<Body>, Refusal> {
        let written = write::update(state, target, self.object()?, &self.write_options())?;
        self.written(target, &written)
    }

    fn patch(&self, state: &mut State, target: &Target) -> Result<Response<Body>, Refusal> {
        let kind = content_type(self.parts);
        if self.call.verb == "apply" {
            return self.apply(state, target);
        }
        let patch = self.decoded_patch(&kind)?;
        let written = write::patch(state, target, &patch, &self.write_options())?;
        self.written(target, &written)
    }

    fn decoded_patch(&self, kind: &str) -> Result<Patch, Refusal> {
        let unreadable = |error: serde_json::Error| status::bad_request(format!("error decoding patch: {error}"));
        match kind {
            "application/json-patch+json" => serde_json::from_slice(&self.body).map(Patch::Json).map_err(unreadable),
            "application/merge-patch+json" => serde_json::from_slice(&self.body).map(Patch::Merge).map_err(unreadable),
            "application/strategic-merge-patch+json" => {
                serde_json::from_slice(&self.body).map(Patch::Strategic).map_err(unreadable)
            }
            _ => Err(status::not_a_patch()),
        }
    }

    fn scale(&self, state: &mut State, target: &Target) -> Result<Response<Body>, Refusal> {
        let scale = match self.call.verb {
            "get" => Arc::new(subresource::scale_of(target, &*target.existing(state)?)?),
            "update" => subresource::update_scale(state, target, &self.object()?, &self.write_options())?,
            "patch" => {
                let patch = self.decoded_patch(&content_type(self.parts))?;
                subresource::patch_scale(state, target, &patch, &self.write_options())?
            }
            _ => return Err(status::method_not_allowed()),
        };
        Ok(json_answer(200, &scale, &[]))
    }

    fn apply(&self, state: &mut State, target: &Target) -> Result<Response<Body>, Refusal> {
        let (object, force) = (self.object()?, self.params.flag("force"));
        if !object["kind"].is_string() {
            return Err(status::bad_request("invalid object type: /, Kind="));
        }
        let written = write::apply(state, target, object, force, &self.write_options())?;
        self.written(target, &written)
    }

    fn delete(&self, state: &mut State, target: &Target) -> Result<Response<Body>, Refusal> {
        let options = self.delete_options()?;
        match delete(state, target, &options, self.shared.clock.now())? {
            Deleted::Waits(object) => self.show(target, &object, 200, &[]),
            Deleted::Gone(object) if target.resource.traits.returns_deleted => self.show(target, &object, 200, &[]),
            Deleted::Gone(object) => {
                let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
                Ok(json_answer(200, &status::deleted(&target.resource, &target.name, uid), &[]))
            }
        }
    }

    fn delete_collection(&self, state: &mut State, target: &Target) -> Result<Response<Body>, Refusal> {
        let options = self.delete_options()?;
        let page = list(state, target, &self.query(target)?)?;
        for item in &page.items {
            let meta = &item["metadata"];
            let one = Target {
                name: meta["name"].as_str().unwrap_or_default().to_owned(),
                namespace: meta["namespace"].as_str().unwrap_or_default().to_owned(),
                ..target.clone()
            };
            match delete(state, &one, &options, self.shared.clock.now()) {
                Err(refusal) if refusal.code != 404 => return Err(refusal),
                _ => {}
            }
        }
        let meta = json!({"resourceVersion": state.revision.to_string()});
        let (kind, api_version) = (&target.resource.list_kind, target.resource.api_version(&target.version));
        Ok(list_answer(kind, &api_version, &meta, &page.items, target.resource.custom))
    }

    fn written(&self, target: &Target, written: &Written) -> Result<Response<Body>, Refusal> {
        self.show(target, &written.object, if written.created { 201 } else { 200 }, &written.warnings)
    }

    fn show(
        &self,
        target: &Target,
        object: &Arc<Value>,
        code: u16,
        warnings: &[String],
    ) -> Result<Response<Body>, Refusal> {
        let presented = target.resource.present(&target.version, object);
        let text = self.view().text(target, &presented, self.shared.clock.now());
        Ok(warned(respond(code, whole(text.into())), warnings))
    }

    fn view(&self) -> View {
        let accept = self.parts.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
        View::accepted(accept.unwrap_or_default(), self.params.text("includeObject"))
    }

    fn query(&self, target: &Target) -> Result<Query, Refusal> {
        let mut fields = FieldSelector::parse(self.params.text("fieldSelector"))?;
        fields.check(&target.resource)?;
        let (version, version_match) = (self.params.text("resourceVersion"), self.params.text("resourceVersionMatch"));
        if self.call.verb == "list" || self.call.verb == "deletecollection" {
            check_match(version, version_match)?;
        }
        if !target.name.is_empty() {
            fields = FieldSelector::parse(&format!("metadata.name={}", target.name))?;
        }
        Ok(Query {
            labels: LabelSelector::parse(self.params.text("labelSelector"))?,
            fields,
            limit: self.params.number("limit").and_then(|limit| usize::try_from(limit).ok()).unwrap_or(0),
            continue_token: self.params.text("continue").to_owned(),
            resource_version: version.to_owned(),
            version_match: version_match.to_owned(),
        })
    }

    fn write_options(&self) -> WriteOptions {
        let manager = self.params.text("fieldManager");
        let agent = self.call.user_agent.split('/').next().unwrap_or_default();
        let manager = [manager, agent].into_iter().find(|name| !name.is_empty()).unwrap_or("unknown");
        WriteOptions {
            now: self.shared.clock.now(),
            manager: manager.to_owned(),
            dry_run: self.params.text("dryRun") == "All",
            validation: match self.params.text("fieldValidation") {
                "Strict" => FieldValidation::Strict,
                "Ignore" => FieldValidation::Ignore,
                _ => FieldValidation::Warn,
            },
        }
    }

    fn delete_options(&self) -> Result<DeleteOptions, Refusal> {
        let body = if self.body.is_empty() { Value::Null } else { self.object()? };
        let mut options = DeleteOptions::from_body(&body)?;
        if !self.params.text("propagationPolicy").is_empty() {
            options.propagation = Some(Propagation::parse(self.params.text("propagationPolicy"))?);
        }
        if let Ok(seconds) = self.params.text("gracePeriodSeconds").parse() {
            options.grace_period_seconds = Some(seconds);
        }
        options.dry_run |= self.params.text("dryRun") == "All";
        Ok(options)
    }

    /// The body as a JSON value; YAML is accepted too.
    fn object(&self) -> Result<Value, Refusal> {
        let kind = content_type(self.parts);
        if kind.contains("yaml") {
            let text = std::str::from_utf8(&self.body).map_err(|error| status::bad_request(error.to_string()))?;
            return serde_saphyr::from_str(text)
                .map_err(|error| status::bad_request(format!("error decoding YAML: {error}")));
        }
        if kind.contains("protobuf") {
            return Err(status::unsupported_media_type("application/json, application/yaml"));
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| status::bad_request(format!("the object provided is unrecognized: {error}")))
    }
}

fn check_match(version: &str, version_match: &str) -> Result<(), Refusal> {
    let why = match (version, version_match) {
        (_, "") => return Ok(()),
        ("", _) => "resourceVersionMatch is forbidden unless resourceVersion is provided",
        ("0", "Exact") => "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        (_, "Exact" | "NotOlderThan") => return Ok(()),
        (_, other) => {
            let known = ["Exact", "NotOlderThan", ""].map(str::to_owned);
            let error = FieldError::not_supported("resourceVersionMatch", &other.into(), &known);
            return Err(status::bad_options("ListOptions", error));
        }
    };
    Err(status::bad_options("ListOptions", FieldError::forbidden("resourceVersionMatch", why)))
}

/// The media type of the body without its parameters.
fn content_type(parts: &Parts) -> String {
    let value = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

pub(super) fn refused(refusal: &Refusal) -> Response<Body> {
    let mut answer = json_answer(refusal.code, &status::to_value(refusal), &[]);
    if let Some(seconds) = refusal.details.as_ref().map(|details| details.retry_after_seconds).filter(|s| *s > 0) {
        answer.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    answer
}

pub(super) fn json_answer(code: u16, value: &Value, warnings: &[String]) -> Response<Body> {
    warned(respond(code, whole(text(value).into())), warnings)
}

fn warned(mut answer: Response<Body>, warnings: &[String]) -> Response<Body> {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            answer.headers_mut().append(header::WARNING, value);
        }
    }
    answer
}

/// A list, written item by item so that no item has to be copied. The items of built-in kinds do not say their type.
fn list_answer(kind: &str, api_version: &str, meta: &Value, items: &[Arc<Value>], typed: bool) -> Response<Body> {
    let untyped = |fields: &serde_json::Map<String, Value>| {
        let fields = fields.iter().filter(|(name, _)| !matches!(name.as_str(), "kind" | "apiVersion"));
        let fields: Vec<String> =
            fields.map(|(name, value)| format!("{}:{}", Value::from(name.as_str()), text(value))).collect();
        format!("{{{}}}", fields.join(","))
    };
    let items: Vec<String> = items
        .iter()
        .map(|item| match item.as_object() {
            Some(fields) if !typed => untyped(fields),
            _ => text(item),
        })
        .collect();
    let (kind, api_version, items) = (Value::from(kind), Value::from(api_version), items.join(","));
    let text = format!("{{\"kind\":{kind},\"apiVersion\":{api_version},\"metadata\":{meta},\"items\":[{items}]}}");
    respond(200, whole(text.into()))
}

/// A value as JSON: three times as fast as its `Display`.
pub(super) fn text(value: &Value) -> String {
    // Only maps with keys that are no strings fail, and a value has none.
    serde_json::to_string(value).unwrap_or_default()
}

pub(super) fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

pub(super) fn respond(code: u16, body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    *answer.status_mut() = http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
