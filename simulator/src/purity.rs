//! S8: the same World gives the same Plan. What a life decides is decided twice now and then, and compared.
//!
//! That whole lives are the same byte for byte, in two processes, is a test of its own (`tests/small_tier.rs`).

use std::cell::{Cell, RefCell};

use tidegate::api::rollout::RolloutStatus;
use tidegate::plan::Plan;
use tidegate::rollout::{self, World};

/// Every so many-th decision is made twice.
const EVERY: u32 = 4;

// A life has a thread of its own, from its beginning to its end.
thread_local! {
    static DECIDED: Cell<u32> = const { Cell::new(0) };
    static DIFFERS: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Decides, and takes note of a second decision that is another one.
pub fn decide(world: &World) -> Plan<RolloutStatus> {
    let plan = rollout::decide(world);
    let count = DECIDED.get().wrapping_add(1);
    DECIDED.set(count);
    if count.is_multiple_of(EVERY) {
        compare(&plan, &rollout::decide(&world.clone()));
    }
    plan
}

/// What was decided in two ways since this was asked last.
pub fn differs() -> Option<String> {
    DIFFERS.take()
}

fn compare(one: &Plan<RolloutStatus>, other: &Plan<RolloutStatus>) {
    if one != other {
        let what = format!("the same World leads to {one:?} and to {other:?}");
        DIFFERS.with_borrow_mut(|differs| _ = differs.get_or_insert(what));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(reason: &str) -> Plan<RolloutStatus> {
        let status = RolloutStatus::default();
        Plan { actions: Vec::new(), status, events: Vec::new(), wake: None, reason: reason.to_owned() }
    }

    #[test]
    fn it_fires_when_two_plans_differ() {
        compare(&plan("a"), &plan("a"));
        assert_eq!(differs(), None);
        compare(&plan("a"), &plan("b"));
        assert!(differs().unwrap().contains("reason: \"b\""));
    }
}
