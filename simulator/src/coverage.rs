//! Which faults met which states of the Rollout.

use std::collections::BTreeMap;
use std::fmt;

use crate::observe::View;
use crate::script::Fault;

/// Counts by state and kind of fault.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Coverage(BTreeMap<(&'static str, &'static str), u64>);

impl Coverage {
    pub fn reached(&mut self, state: &'static str, fault: &'static str) {
        *self.0.entry((state, fault)).or_default() += 1;
    }

    pub fn merge(&mut self, other: &Self) {
        for (cell, count) in &other.0 {
            *self.0.entry(*cell).or_default() += count;
        }
    }

    /// How often this fault met this state.
    pub fn count(&self, state: &'static str, fault: &'static str) -> u64 {
        self.0.get(&(state, fault)).copied().unwrap_or(0)
    }

    /// The cells that were never reached.
    pub fn missing(&self) -> Vec<(&'static str, &'static str)> {
        let cells = View::STATES.iter().flat_map(|state| Fault::FAMILIES.iter().map(move |fault| (*state, *fault)));
        cells.filter(|cell| !self.0.contains_key(cell)).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<12}", "")?;
        for state in View::STATES {
            write!(f, "{state:>11}")?;
        }
        writeln!(f)?;
        for fault in Fault::FAMILIES {
            write!(f, "{fault:<12}")?;
            for state in View::STATES {
                write!(f, "{:>11}", self.count(state, fault))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_and_what_is_missing_is_named() {
        let mut coverage = Coverage::default();
        coverage.reached("healthy", "A1 crash");
        let mut more = coverage.clone();
        more.merge(&coverage);
        assert_eq!(more.count("healthy", "A1 crash"), 2);
        assert!(!more.missing().contains(&("healthy", "A1 crash")) && more.missing().contains(&("gone", "A1 crash")));
    }
}
