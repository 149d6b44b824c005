//! S6: every write carries a resourceVersion or uid precondition, so that two leaders cannot both win.
//!
//! A creation carries a name: the second one is refused. Excused: Events, which nothing stands on.

use serde_json::Value;

use crate::checkers::{Checker, Violation, violated};
use crate::observe::{Asked, Seen, View};

#[derive(Default)]
pub struct Preconditions;

impl Checker for Preconditions {
    fn observe(&mut self, seen: &Seen, view: &View, found: &mut Vec<Violation>) {
        let Seen::Asked(asked) = seen else { return };
        if asked.code.is_some() || asked.resource.starts_with("events") || has_precondition(asked) {
            return;
        }
        let Asked { verb, resource, name, body, .. } = asked;
        found.push(violated("S6", view, format!("{verb} {resource} {name} without a precondition: {body}")));
    }
}

fn has_precondition(asked: &Asked) -> bool {
    let body = &asked.body;
    let given = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    let named = |meta: &Value| given(&meta["uid"]) || given(&meta["resourceVersion"]);
    match (asked.verb, asked.subresource.as_str()) {
        ("create", "eviction") => named(&body["deleteOptions"]["preconditions"]),
        ("create", _) => given(&body["metadata"]["name"]),
        ("update", _) => given(&body["metadata"]["resourceVersion"]),
        ("delete", _) => named(&body["preconditions"]),
        ("patch", _) => match body.as_array() {
            Some(operations) => operations.iter().any(|operation| {
                operation["op"] == "test"
                    && given(&operation["value"])
                    && matches!(operation["path"].as_str(), Some("/metadata/uid" | "/metadata/resourceVersion"))
            }),
            None => named(&body["metadata"]),
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checkers::history::History;

    #[test]
    fn it_fires_when_a_write_would_win_against_anybody() {
        let uid = json!([{"op": "test", "path": "/metadata/uid", "value": "1"}]);
        for (verb, body, kept) in [
            ("patch", json!({"spec": {"replicas": 0}}), false),
            ("patch", json!({"metadata": {"uid": "1"}, "spec": {"replicas": 0}}), true),
            ("patch", json!([{"op": "replace", "path": "/spec/replicas", "value": 0}]), false),
            ("patch", uid, true),
            ("delete", json!({}), false),
            ("delete", json!({"preconditions": {"uid": "1"}}), true),
            ("update", json!({"metadata": {"uid": "1"}}), false),
            ("create", json!({"metadata": {"generateName": "web-"}}), false),
            ("create", json!({"metadata": {"name": "web-1"}}), true),
        ] {
            let mut history = History::<Preconditions>::released();
            history.asks(verb, "replicasets.apps", "web-a", body.clone());
            assert_eq!(history.promises().is_empty(), kept, "{verb} {body}");
        }
    }
}
