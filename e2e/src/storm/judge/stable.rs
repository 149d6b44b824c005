//! S4: stable changes only to the version of the template, once its pods are there, and never after an abort.

use super::super::fleet::{REPLICAS, UNAVAILABLE};
use super::{Checker, Moment};

pub struct Stable;

impl Checker for Stable {
    fn promise(&self) -> &'static str {
        "S4"
    }

    fn see(&mut self, moment: &Moment<'_>) -> Option<String> {
        let (was, is) = (moment.before.rollout.as_ref()?, moment.after.rollout.as_ref()?);
        if was.stable.is_empty() || was.stable == is.stable {
            return None;
        }
        let ready = moment.after.ready(&is.stable);
        let what = format!("stable becomes {}", is.stable);
        if is.stable != is.current {
            return Some(format!("{what}, and the version of the template is {}", is.current));
        }
        if was.aborted && is.aborted {
            return Some(format!("{what} after an abort"));
        }
        (ready < REPLICAS - UNAVAILABLE).then(|| format!("{what}, which has {ready} ready pods"))
    }
}
