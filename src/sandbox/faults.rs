//! The seam where tests make the server fail: a hook that is asked about every request and every watch event.

use std::time::Duration;

use bytes::Bytes;

use super::state::Change;
use super::status::Refusal;

/// A request that a client made. Direct access by models and tests is not asked about.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `apply`, `delete` or `deletecollection`.
    pub verb: &'static str,
    /// The resource's key, such as `rollouts.argoproj.io`.
    pub resource: String,
    /// `status`, `scale`, `eviction`, `binding`, or empty.
    pub subresource: String,
    /// Empty for cluster-scoped resources and for all namespaces.
    pub namespace: String,
    /// Empty for requests about a collection.
    pub name: String,
    /// Who asks, as the `User-Agent` header says.
    pub user_agent: String,
    /// What the client sent along: an object, a patch, options; empty for reads.
    pub body: Bytes,
}

/// What becomes of a request.
#[derive(Clone, Debug, Default)]
pub enum Fault {
    /// Nothing out of the ordinary.
    #[default]
    None,
    /// The server answers with this refusal.
    Refuse(Refusal),
    /// The server takes its time first.
    Delay(Duration),
    /// The connection breaks without an answer.
    Break,
    /// No answer ever comes.
    Hang,
}

/// What becomes of an event on its way to one watch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum WatchFault {
    /// It arrives.
    #[default]
    Pass,
    /// It is lost, as a server that loses events would.
    Drop,
    /// It arrives twice.
    Duplicate,
    /// It and all that follow arrive later.
    Delay(Duration),
    /// The watch ends before it.
    End,
    /// The server says that it has forgotten the version (410), so that everything has to be listed again.
    Expire,
    /// It and all that follow wait: asked again at the next change of the resource, at the latest after this time.
    NotYet(Duration),
}

/// Decides about faults. All methods default to none.
pub trait Faults: Send + Sync {
    /// Asked before a request is carried out: a fault here means that nothing happened.
    fn before(&self, call: &Call) -> Fault {
        let _ = call;
        Fault::None
    }

    /// Told what became of a request that was carried out, before anybody hears of it.
    fn answered(&self, call: &Call, code: u16) {
        let _ = (call, code);
    }

    /// Asked after a request was carried out: a fault here loses the answer, not the change.
    fn after(&self, call: &Call) -> Fault {
        let _ = call;
        Fault::None
    }

    /// Asked about each event that a watch is about to send.
    fn on_event(&self, call: &Call, change: &Change) -> WatchFault {
        let _ = (call, change);
        WatchFault::Pass
    }
}

/// No faults.
pub(super) struct Flawless;

impl Faults for Flawless {}
