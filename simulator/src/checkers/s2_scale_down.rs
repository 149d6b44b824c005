//! S2: no ReplicaSet is scaled down while a route or a Service still sends it what its remaining pods cannot carry, as the
//! objects in the API say at that instant (no cache).
//!
//! ReplicaSets behind one Service carry its traffic together.
//!
//! Excused: within 45 s of somebody else's edit of a route, a Service or the strategy: between a read and a write nobody
//! can exclude it. The size that users want counts as the smallest of the last minute.

use crate::checkers::s1_capacity::carried;
use crate::checkers::{Checker, Violation, violated};
use crate::observe::{REPLICA_SETS, Seen, View, set};

#[derive(Default)]
pub struct ScaleDown;

impl Checker for ScaleDown {
    fn observe(&mut self, seen: &Seen, view: &View, found: &mut Vec<Violation>) {
        let Seen::Change { change, .. } = seen else { return };
        if &*change.resource != REPLICA_SETS || view.now < view.foreign {
            return;
        }
        let name = change.object["metadata"]["name"].as_str().unwrap_or_default();
        let now = set(name, &change.object);
        let before = change.previous.as_deref().map_or(0, |previous| set(name, previous).wanted);
        if now.owner != "Rollout" || now.wanted >= before {
            return;
        }
        let (share, others) = carried(name, view, &view.stored());
        let need = view.need(share, view.smallest_size(60_000));
        if now.wanted + others < need {
            let what = format!(
                "{name} is scaled from {before} to {} while {:.0}% of the traffic points at it, which needs {need}",
                now.wanted,
                share * 100.0
            );
            found.push(violated("S2", view, what));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::history::History;

    #[test]
    fn it_fires_when_something_still_points_there() {
        let mut history = History::<ScaleDown>::released();
        history.set("b", 4, 4).set("a", 0, 0);
        assert_eq!(history.promises(), ["S2"]);
        history.set("a", 4, 4).route(0, 100).set("a", 0, 0);
        assert!(history.promises().is_empty());
    }
}
