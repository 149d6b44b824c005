//! A bar that shows how far something has come, where somebody looks at it.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

const COLUMNS: usize = 30;

/// A bar on standard error; nothing where that is no terminal.
pub struct Progress {
    live: bool,
    shown: Mutex<String>,
}

impl Progress {
    pub fn new() -> Self {
        Self { live: std::io::stderr().is_terminal(), shown: Mutex::default() }
    }

    /// Shows that `share` of it is done.
    pub fn show(&self, what: &str, share: f64) {
        if !self.live {
            return;
        }
        let line = line(what, share);
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if *shown != line {
            // A terminal that has gone needs no bar.
            let _ = write!(std::io::stderr(), "\r{line}\x1b[K");
            *shown = line;
        }
    }

    /// Leaves no trace.
    pub fn end(&self) {
        if self.live {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(what: &str, share: f64) -> String {
    let share = share.clamp(0.0, 1.0);
    let full = (share * COLUMNS as f64) as usize;
    format!("{what} {}{} {:3.0}%", "█".repeat(full), "░".repeat(COLUMNS - full), (share * 100.0).floor())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills_up() {
        assert_eq!(line("reading", 0.5), format!("reading {}{}  50%", "█".repeat(15), "░".repeat(15)));
        assert!(line("x", 7.0).ends_with("100%") && line("x", f64::NAN).contains('░'));
    }
}
