//! Services and routes, as they were observed.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use crate::api::resource::ObjectRef;

/// Objects of routers, by reference, as raw JSON: nothing that we do not know is lost.
pub type Routes = BTreeMap<ObjectRef, Observed<Arc<Value>>>;

/// An object, and how long it has been routing as it does.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed<T> {
    pub object: T,
    /// When the part of the object that directs traffic (selector, weights, backends) was first seen as it is now. After a
    /// restart of the controller that is the time of the restart: waiting too long is safe, too short is not.
    pub since: Timestamp,
}

/// A Service, reduced to what decisions need.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Service {
    pub name: String,
    pub uid: String,
    pub resource_version: String,
    pub annotations: BTreeMap<String, String>,
    pub selector: BTreeMap<String, String>,
    /// What it selected before, if it was seen to change.
    pub selected: Option<BTreeMap<String, String>>,
    /// Ports by name (empty when unnamed) and number.
    pub ports: Vec<(String, i32)>,
}
