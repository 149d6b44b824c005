//! Lists: selectors, pages and versions.

use std::sync::Arc;

use serde_json::Value;

use super::selector::{FieldSelector, LabelSelector};
use super::state::State;
use super::status::{self, Refusal};
use super::write::Target;

/// What a list or a watch asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct Query {
    pub(super) labels: LabelSelector,
    pub(super) fields: FieldSelector,
    pub(super) limit: usize,
    pub(super) continue_token: String,
    pub(super) resource_version: String,
    pub(super) version_match: String,
}

/// A page of a list.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) items: Vec<Arc<Value>>,
    pub(super) revision: u64,
    pub(super) continue_token: Option<String>,
    pub(super) remaining: Option<usize>,
}

impl Query {
    pub(super) fn matches(&self, object: &Value) -> bool {
        self.labels.matches(object) && self.fields.matches(object)
    }
}

/// Lists the objects of a namespace, or of all when the target has none.
pub(super) fn list(state: &State, target: &Target, query: &Query) -> Result<Page, Refusal> {
    let Some(collection) = state.collection(&target.resource.collection) else {
        return Err(status::no_such_path());
    };
    let namespace = (!target.namespace.is_empty()).then_some(target.namespace.as_str());
    let asked = parse_version(&query.resource_version)?;
    if asked > state.revision {
        return Err(status::too_large_version(asked, state.revision));
    }
    let (revision, after) = match Continue::parse(&query.continue_token)? {
        Some(token) => (token.revision, Some((token.namespace, token.name))),
        None if query.version_match == "Exact" => (asked, None),
        None => (state.revision, None),
    };
    let past;
    let all: Box<dyn Iterator<Item = &Arc<Value>>> = if revision == state.revision {
        collection.iter(namespace)
    } else {
        let gone = if after.is_some() {
            "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter."
                .to_owned()
        } else {
            format!("The resourceVersion for the provided list is too old: {revision}.")
        };
        past = collection.objects_at(revision, state.revision, &gone)?;
        let wanted = move |of: &str| namespace.is_none_or(|namespace| of == namespace);
        Box::new(past.iter().filter(move |(of, _)| wanted(of)).flat_map(|(_, objects)| objects.values()))
    };
    let mut matching = all.filter(|object| query.matches(object)).filter(|object| {
        after.as_ref().is_none_or(|(namespace, name)| place_of(object) > (namespace.as_str(), name.as_str()))
    });
    let present = |object: &Arc<Value>| target.resource.present(&target.version, object);
    if query.limit == 0 {
        return Ok(Page { items: matching.map(present).collect(), revision, continue_token: None, remaining: None });
    }
    let items: Vec<Arc<Value>> = matching.by_ref().take(query.limit).map(present).collect();
    let remaining = matching.count();
    // Whether there is more is a question of keys: what comes may not match.
    let full = items.len() == query.limit;
    let last_key = collection.iter(namespace).last().map(|last| place_of(last));
    let more = |last: &Arc<Value>| remaining > 0 || full && last_key.is_some_and(|key| key > place_of(last));
    let continue_token = items.last().filter(|last| more(last)).map(|last| {
        let (namespace, name) = place_of(last);
        Continue { revision, namespace: namespace.to_owned(), name: name.to_owned() }.to_token()
    });
    let selective = query.labels != LabelSelector::default() || query.fields != FieldSelector::default();
    let remaining = (remaining > 0 && !selective).then_some(remaining);
    Ok(Page { items, revision, continue_token, remaining })
}

/// A resourceVersion as a number; absent and `0` are zero.
pub(super) fn parse_version(text: &str) -> Result<u64, Refusal> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| {
        status::bad_request(format!(
            "invalid resource version: resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": invalid syntax"
        ))
    })
}

fn place_of(object: &Value) -> (&str, &str) {
    let meta = &object["metadata"];
    (meta["namespace"].as_str().unwrap_or_default(), meta["name"].as_str().unwrap_or_default())
}

/// Where the next page begins. Opaque to clients: `revision/namespace/name` in hexadecimal.
struct Continue {
    revision: u64,
    namespace: String,
    name: String,
}

impl Continue {
    fn to_token(&self) -> String {
        let text = format!("{}/{}/{}", self.revision, self.namespace, self.name);
        text.bytes().map(|byte| format!("{byte:02x}")).collect()
    }

    fn parse(token: &str) -> Result<Option<Self>, Refusal> {
        if token.is_empty() {
            return Ok(None);
        }
        let read = || {
            let bytes: Option<Vec<u8>> = token
                .as_bytes()
                .chunks(2)
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
                .collect();
            let text = String::from_utf8(bytes?).ok()?;
            let mut parts = text.splitn(3, '/');
            let revision = parts.next()?.parse().ok()?;
            Some(Self { revision, namespace: parts.next()?.to_owned(), name: parts.next()?.to_owned() })
        };
        read().map(Some).ok_or_else(|| status::bad_request("invalid continue token: continue key is not valid"))
    }
}
