//! Direct access for models and tests: the same verbs, synchronously, without HTTP and without faults.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::mpsc;

use super::ApiServer;
use super::delete::{DeleteOptions, Deleted, delete};
use super::patch::Patch;
use super::read::{Query, list};
use super::selector::LabelSelector;
use super::state::{Change, State};
use super::status::{self, Refusal};
use super::subresource;
use super::write::{self, FieldValidation, Ownership, Sub, Target, WriteOptions};

/// The server's verbs in the name of one field manager.
///
/// A `resource` is named as kubectl names it: `pods`, `replicasets.apps`, `rollouts.argoproj.io`. The namespace of
/// cluster-scoped objects is empty. Objects are in the resource's storage version.
#[derive(Clone)]
pub struct Scoped {
    server: ApiServer,
    manager: String,
}

impl ApiServer {
    /// Direct access in the name of a field manager, such as `kubelet`.
    pub fn manager(&self, name: &str) -> Scoped {
        Scoped { server: self.clone(), manager: name.to_owned() }
    }

    /// All changes from now on, in the order in which the server made them. Reading them is the caller's duty: they
    /// are kept until then.
    pub fn subscribe(&self) -> Subscription {
        Subscription(self.shared.lock().subscribe())
    }

    /// Forgets all history: every watch that is not up to date, and every new watch from an older version, is answered
    /// with 410.
    pub fn forget_history(&self) {
        self.shared.lock().forget_history();
    }

    /// Keeps at most this many changes of each resource.
    pub fn limit_history(&self, changes: usize) {
        self.shared.lock().limit_history(changes);
    }

    /// The resourceVersion of the newest change.
    pub fn revision(&self) -> u64 {
        self.shared.lock().revision
    }
}

/// Changes as they happen.
#[derive(Debug)]
pub struct Subscription(mpsc::UnboundedReceiver<Change>);

impl Subscription {
    /// The next change that has already happened.
    pub fn try_next(&mut self) -> Option<Change> {
        self.0.try_recv().ok()
    }

    /// Waits for the next change; `None` when the server is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Change> {
        self.0.recv().await
    }
}

impl Scoped {
    /// The server.
    pub fn server(&self) -> &ApiServer {
        &self.server
    }

    /// One object.
    ///
    /// # Errors
    /// As the server refuses: not found.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Result<Arc<Value>, Refusal> {
        let state = self.server.shared.lock();
        target(&state, resource, namespace, name)?.existing(&state)
    }

    /// The objects of a namespace (of all for an empty one), ordered by namespace and name. A resource that is not
    /// served has none.
    pub fn list(&self, resource: &str, namespace: &str) -> Vec<Arc<Value>> {
        self.select(resource, namespace, &LabelSelector::default())
    }

    /// The objects that a label selector selects.
    pub fn select(&self, resource: &str, namespace: &str, labels: &LabelSelector) -> Vec<Arc<Value>> {
        let state = self.server.shared.lock();
        let query = Query { labels: labels.clone(), ..Query::default() };
        let page = target(&state, resource, namespace, "").and_then(|target| list(&state, &target, &query));
        page.map(|page| page.items).unwrap_or_default()
    }

    /// Creates an object. `apiVersion` and `kind` may be left out.
    ///
    /// # Errors
    /// As the server refuses.
    pub fn create(&self, resource: &str, namespace: &str, object: Value) -> Result<Arc<Value>, Refusal> {
        let mut state = self.server.shared.lock();
        let target = target(&state, resource, namespace, "")?;
        write::create(&mut state, &target, object, &self.options()).map(|written| written.object)
    }

    /// Replaces an object, all but its status. A `resourceVersion` in it must be the stored one.
    ///
    /// # Errors
    /// As the server refuses.
    pub fn update(&self, resource: &str, namespace: &str, object: Value) -> Result<Arc<Value>, Refusal> {
        self.write(resource, namespace, &name_of(&object)?, Sub::Whole, |state, target, options| {
            write::update(state, target, object, options)
        })
    }

    /// Replaces an object's status.
    ///
    /// # Errors
    /// As the server refuses.
    pub fn update_status(&self, resource: &str, namespace: &str, object: Value) -> Result<Arc<Value>, Refusal> {
        self.write(resource, namespace, &name_of(&object)?, Sub::Status, |state, target, options| {
            write::update(state, target, object, options)
        })
    }

    /// Patches an object.
    ///
    /// # Errors
    /// As the server refuses.
    pub fn patch(&self, resource: &str, namespace: &str, name: &str, patch: &Patch) -> Result<Arc<Value>, Refusal> {
        self.write(resource, namespace, name, Sub::Whole, |state, target, options| {
            write::patch(state, target, patch, options)
        })
    }

    /// Patches an object's status.
    ///
    /// # Errors
    /// As the server refuses.
    pub fn patch_status(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        patch: &Patch,
    ) -> Result<Arc<Value>, Refusal> {
        self.write(resource, namespace, name, Sub::Status, |state, target, options| {
            write::patch(state, target, patch, options)
        })
    }

    /// Applies a configuration in the manner of server-side apply.
    ///
    /// # Errors
    /// As the server refuses: a conflict, unless forced, when other managers own what would change.
    pub fn apply(&self, resource: &str, namespace: &str, object: Value, force: bool) -> Result<Arc<Value>, Refusal> {
        self.write(resource, namespace, &name_of(&object)?, Sub::Whole, |state, target, options| {
            write::apply(state, target, object, force, options)
        })
    }

    /// Edits an object, all but its status, in one step: nothing can come between the read and the write.
    ///
    /// # Errors
    /// As the server refuses.
    pub fn edit(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        edit: impl FnOnce(&mut Value),
    ) -> Result<Arc<Value>, Refusal> {
        self.write(resource, namespace, name, Sub::Whole, |state, target, options| edited(state, target, options, edit))
    }

    /// Edits an object's status in one step.
    ///
    /// # Errors
    /// As the server refuses.
    pub fn edit_status(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        edit: impl FnOnce(&mut Value),
    ) -> Result<Arc<Value>, Refusal> {
        self.write(resource, namespace, name, Sub::Status, |state, target, options| {
            edited(state, target, options, edit)
        })
    }

    /// Deletes an object, and what it owns. The answer is the object as it was last, or as it waits to go.
    ///
    /// # Errors
    /// As the server refuses.
    pub fn delete(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Arc<Value>, Refusal> {
        let mut state = self.server.shared.lock();
        let target = target(&state, resource, namespace, name)?;
        match delete(&mut state, &target, options, self.server.shared.clock.now())? {
            Deleted::Gone(object) | Deleted::Waits(object) => Ok(object),
        }
    }

    /// Binds a pod to a node, as a scheduler does.
    ///
    /// # Errors
    /// As the server refuses.
    pub fn bind(&self, namespace: &str, pod: &str, node: &str) -> Result<(), Refusal> {
        let mut state = self.server.shared.lock();
        let target = target(&state, "pods", namespace, pod)?;
        let binding = serde_json::json!({"target": {"kind": "Node", "name": node}});
        subresource::bind(&mut state, &target, &binding, self.server.shared.clock.now()).map(drop)
    }

    fn write(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        sub: Sub,
        write: impl FnOnce(&mut State, &Target, &WriteOptions) -> Result<write::Written, Refusal>,
    ) -> Result<Arc<Value>, Refusal> {
        let mut state = self.server.shared.lock();
        let target = Target { sub, ..target(&state, resource, namespace, name)? };
        write(&mut state, &target, &self.options()).map(|written| written.object)
    }

    fn options(&self) -> WriteOptions {
        WriteOptions {
            now: self.server.shared.clock.now(),
            manager: self.manager.clone(),
            dry_run: false,
            validation: FieldValidation::Strict,
        }
    }
}

fn edited(
    state: &mut State,
    target: &Target,
    options: &WriteOptions,
    edit: impl FnOnce(&mut Value),
) -> Result<write::Written, Refusal> {
    let existing = target.existing(state)?;
    let mut object = (*existing).clone();
    edit(&mut object);
    let object = write::admissible(target, object)?;
    write::replace(state, target, &existing, object, Ownership::ByUpdate, options)
}

fn target(state: &State, resource: &str, namespace: &str, name: &str) -> Result<Target, Refusal> {
    let resource = state.resource(resource).ok_or_else(status::no_such_path)?;
    Ok(Target {
        version: resource.stored().map(|version| version.name.clone()).unwrap_or_default(),
        resource: resource.clone(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        sub: Sub::Whole,
    })
}

fn name_of(object: &Value) -> Result<String, Refusal> {
    let name = object["metadata"]["name"].as_str();
    name.map(str::to_owned).ok_or_else(|| status::bad_request("name must be provided"))
}
