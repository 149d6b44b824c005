//! The promises, one file each. They look at what a user could see and know nothing of how the controller decides.

#[cfg(test)]
mod history;
mod l1_rest;
mod l2_abort;
mod l4_hot_loop;
mod s1_capacity;
mod s2_scale_down;
mod s3_pause;
mod s3_weight;
mod s4_stable;
mod s5_verdict;
mod s6_preconditions;
mod s7_totals;

use std::fmt;

use crate::observe::{Seen, View};

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which: `S1` to `L4`.
    pub promise: &'static str,
    /// Milliseconds since the start.
    pub at: u64,
    pub what: String,
}

/// Watches over one promise.
pub trait Checker: Send {
    /// Looks at what was just seen; the view has it already.
    fn observe(&mut self, seen: &Seen, view: &View, found: &mut Vec<Violation>);
}

/// One of each.
pub fn all() -> Vec<Box<dyn Checker>> {
    vec![
        Box::<s1_capacity::Capacity>::default(),
        Box::<s2_scale_down::ScaleDown>::default(),
        Box::<s3_weight::Weight>::default(),
        Box::<s3_pause::Pause>::default(),
        Box::<s4_stable::Stable>::default(),
        Box::<s5_verdict::Verdict>::default(),
        Box::<s6_preconditions::Preconditions>::default(),
        Box::<s7_totals::Totals>::default(),
        Box::<l1_rest::Rest>::default(),
        Box::<l2_abort::Abort>::default(),
        Box::<l4_hot_loop::HotLoop>::default(),
    ]
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}.{:03} s: {}", self.promise, self.at / 1000, self.at % 1000, self.what)
    }
}

/// Says that a promise was not kept.
fn violated(promise: &'static str, view: &View, what: String) -> Violation {
    Violation { promise, at: view.now, what }
}
