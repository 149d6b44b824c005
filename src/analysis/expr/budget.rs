//! What one evaluation may cost. Go bounds the elements that lists get; here strings and steps are bounded too, because
//! an expression comes from whoever may create an AnalysisTemplate and runs inside the controller.

/// Go's own budget: elements of lists and maps that an expression makes.
const ELEMENTS: usize = 1_000_000;
/// Bytes of strings that an expression makes.
const BYTES: usize = 64 << 20;
/// Nodes and elements visited: some tenths of a second. A predicate over Go's largest range fits.
const STEPS: usize = 20_000_000;
/// Bytes that are searched or compared for the price of one step.
const SCAN: usize = 64;

const EXCEEDED: &str = "memory budget exceeded";
const TOO_LONG: &str = "step budget exceeded";
pub(super) const TOO_DEEP: &str = "value is nested too deeply";

#[derive(Debug)]
pub(super) struct Budget {
    elements: usize,
    bytes: usize,
    steps: usize,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self { elements: 0, bytes: 0, steps: 0 }
    }

    pub(super) fn step(&mut self) -> Result<(), String> {
        self.steps(1)
    }

    pub(super) fn steps(&mut self, count: usize) -> Result<(), String> {
        self.steps = self.steps.saturating_add(count);
        if self.steps > STEPS { Err(TOO_LONG.into()) } else { Ok(()) }
    }

    pub(super) fn scan(&mut self, bytes: usize) -> Result<(), String> {
        self.steps(bytes / SCAN)
    }

    /// Elements that Go counts, too.
    pub(super) fn elements(&mut self, count: usize) -> Result<(), String> {
        self.elements = self.elements.saturating_add(count);
        if self.elements >= ELEMENTS { Err(EXCEEDED.into()) } else { Ok(()) }
    }

    /// Room for `count` values that Go makes without counting.
    pub(super) fn uncounted(&mut self, count: usize) -> Result<(), String> {
        self.bytes(count.saturating_mul(size_of::<super::Value>()))
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<(), String> {
        self.bytes = self.bytes.saturating_add(count);
        if self.bytes > BYTES { Err(EXCEEDED.into()) } else { Ok(()) }
    }
}

/// What exceeding a budget says, for telling a limit from a failure of the expression.
pub(super) fn is_limit(message: &str) -> bool {
    [EXCEEDED, TOO_LONG, TOO_DEEP].contains(&message)
}
