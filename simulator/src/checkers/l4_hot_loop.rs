//! L4: no hot loop. No object is asked to be written more than 30 times in 10 s, and nothing is written again and again
//! that changes nothing.
//!
//! Excused: Events, which have a limit of their own; what two leaders write while there are two, since each sees the other's
//! writes as news. Nothing else: failures are no reason to hurry.

use std::collections::{BTreeMap, VecDeque};

use crate::checkers::{Checker, Violation, violated};
use crate::observe::{Seen, View};

const WINDOW: u64 = 10_000;
const MOST: usize = 30;
const MOST_IDLE: u32 = 3;

#[derive(Default)]
pub struct HotLoop {
    /// When each object was asked to be written.
    asked: BTreeMap<(String, String), VecDeque<u64>>,
    /// The object that is being written, and whether it has changed.
    writing: Option<((String, String), bool)>,
    /// Writes in a row that changed nothing.
    idle: BTreeMap<(String, String), u32>,
}

impl Checker for HotLoop {
    fn observe(&mut self, seen: &Seen, view: &View, found: &mut Vec<Violation>) {
        match seen {
            Seen::Asked(asked) if !asked.resource.starts_with("events") && view.now >= view.two_leaders => {
                let object = (asked.resource.clone(), asked.name.clone());
                match asked.code {
                    None => {
                        let times = self.asked.entry(object.clone()).or_default();
                        times.push_back(view.now);
                        while times.front().is_some_and(|at| *at + WINDOW < view.now) {
                            times.pop_front();
                        }
                        if times.len() > MOST {
                            let what = format!("{} {} is written {} times in 10 s", object.0, object.1, times.len());
                            found.push(violated("L4", view, what));
                            times.clear();
                        }
                        self.writing = Some((object, false));
                    }
                    Some(200) if asked.verb == "patch" => {
                        let changed = self.writing.take().is_some_and(|(of, changed)| of == object && changed);
                        let idle = self.idle.entry(object.clone()).or_default();
                        *idle = if changed { 0 } else { *idle + 1 };
                        if *idle > MOST_IDLE {
                            let what = format!("{} {} is written {idle} times without a change", object.0, object.1);
                            found.push(violated("L4", view, what));
                            *idle = 0;
                        }
                    }
                    Some(_) => self.writing = None,
                }
            }
            Seen::Change { change, .. } => {
                if let Some((object, changed)) = &mut self.writing
                    && object.0 == *change.resource
                    && change.object["metadata"]["name"] == *object.1
                {
                    *changed = true;
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checkers::history::History;

    #[test]
    fn it_fires_when_an_object_is_written_all_the_time() {
        let mut history = History::<HotLoop>::released();
        for _ in 0..=MOST {
            history.after(100).asks("patch", "rollouts.argoproj.io", "web", json!({}));
        }
        assert_eq!(history.promises(), ["L4"]);
    }
}
