//! L1, the second half: once all is as it was wanted, nothing is written any more. (That it comes to be so in time is seen
//! by the life itself, which waits for it.)
//!
//! Nothing is excused.

use crate::checkers::{Checker, Violation, violated};
use crate::observe::{Seen, View};

#[derive(Default)]
pub struct Rest {
    settled: bool,
}

impl Checker for Rest {
    fn observe(&mut self, seen: &Seen, view: &View, found: &mut Vec<Violation>) {
        match seen {
            Seen::Settled => self.settled = true,
            Seen::Asked(asked) if self.settled && asked.code.is_none() => {
                let what = format!(
                    "{} {} {} though nothing has happened: {}",
                    asked.verb, asked.resource, asked.name, asked.body
                );
                found.push(violated("L1", view, what));
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
    fn it_fires_when_something_is_written_at_rest() {
        let mut history = History::<Rest>::released();
        history.asks("patch", "rollouts.argoproj.io", "web", json!({}));
        assert!(history.promises().is_empty());
        history.see(Seen::Settled).asks("patch", "rollouts.argoproj.io", "web", json!({}));
        assert_eq!(history.promises(), ["L1"]);
    }
}
