//! S7: the pods of all versions together stay within maxUnavailable, and within maxSurge where no traffic routing needs more.

use super::super::fleet::{Kind, REPLICAS, SURGE, UNAVAILABLE};
use super::{Checker, Moment};

pub struct Totals;

impl Checker for Totals {
    fn promise(&self) -> &'static str {
        "S7"
    }

    fn see(&mut self, moment: &Moment<'_>) -> Option<String> {
        if !moment.established {
            return None;
        }
        let (ready, specified) = (moment.after.all_ready(), moment.after.specified());
        if ready < REPLICAS - UNAVAILABLE {
            return Some(format!("{ready} pods are ready"));
        }
        (moment.kind == Kind::Basic && specified > REPLICAS + SURGE).then(|| format!("{specified} pods are specified"))
    }
}
