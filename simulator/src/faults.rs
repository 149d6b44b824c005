//! The injector: it stands between the controllers and the API server, and makes go wrong what the script says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::core::Status;
use kube::core::response::{StatusDetails, StatusSummary};
use tidegate::sandbox::{Call, Change, Fault as Sandbox, Faults, Refusal, WatchFault};
use tokio::sync::mpsc;

use crate::observe::{Log, Seen};
use crate::script::{Answer, Fault, Millis, WatchHow, What, When};

/// The longest time for which events are held back for others to come.
const LONGEST_LAG: u64 = 60_000;

/// What the world has to do about a controller.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// It has crashed: another one starts.
    Crashed { agent: String },
    /// It stands still until then, and another one starts at once.
    Paused { agent: String, until: u64 },
    /// Something happens to the world just now.
    Befalls(What),
}

/// What has happened so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// Requests that are no watches.
    pub calls: u32,
    /// Of these, requests that change something.
    pub writes: u32,
    /// Watch events by the plural of their kind.
    pub events: BTreeMap<String, u32>,
}

/// Makes the faults of a script.
pub struct Injector {
    log: Arc<Log>,
    state: Mutex<State>,
    commands: mpsc::UnboundedSender<Command>,
}

#[derive(Default)]
struct State {
    /// What is still to come.
    faults: Vec<Fault>,
    counts: Counts,
    /// Controllers that are no more: what they had sent is never answered.
    dead: BTreeSet<String>,
    /// Controllers that stand still, and until when.
    paused: BTreeMap<String, u64>,
    /// What is to happen after the request that is being carried out.
    after: Option<Fault>,
    /// How writes are answered, and until when.
    outage: Option<(Answer, u64)>,
    /// Watches that lag: so many events to wait for, at most until then.
    lags: BTreeMap<(String, String), (u32, u64)>,
}

impl Injector {
    /// Of the script's faults only those are made here that concern the API, or that come with a request.
    pub fn new(log: Arc<Log>, faults: &[Fault], commands: mpsc::UnboundedSender<Command>) -> Arc<Self> {
        let comes_with_a_request = |fault: &&Fault| is_of_api(&fault.what) || !matches!(fault.when, When::At(_));
        let faults = faults.iter().filter(comes_with_a_request).cloned().collect();
        Arc::new(Self { log, state: Mutex::new(State { faults, ..State::default() }), commands })
    }

    pub fn counts(&self) -> Counts {
        self.state().counts.clone()
    }

    /// What a controller has sent and will send is never answered.
    pub fn kill(&self, agent: &str) {
        self.state().dead.insert(agent.to_owned());
    }

    /// From now on every write is answered so, for this time.
    pub fn refuse_writes(&self, answer: Answer, time: Millis) {
        self.state().outage = Some((answer, self.log.now() + time.0));
    }

    /// Nothing goes wrong any more, whatever the script says.
    pub fn relent(&self) {
        let mut state = self.state();
        state.faults.clear();
        state.lags.clear();
        state.outage = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, command: Command) {
        // Nobody listens only when the life is over.
        let _ = self.commands.send(command);
    }
}

/// Whether it concerns requests and watches rather than the world.
pub fn is_of_api(what: &What) -> bool {
    matches!(
        what,
        What::CrashBefore | What::CrashAfter | What::Answer(_) | What::Outage(..) | What::Watch { .. } | What::Pause(_)
    )
}

fn is_write(call: &Call) -> bool {
    !matches!(call.verb, "get" | "list" | "watch")
}

impl State {
    /// The fault that meets this call, if any does.
    fn strike(&mut self, call: &Call, now: u64) -> Option<Fault> {
        self.counts.calls += 1;
        self.counts.writes += u32::from(is_write(call));
        let (calls, writes) = (self.counts.calls, self.counts.writes);
        let meets = |fault: &Fault| match (&fault.what, fault.when) {
            (What::Watch { .. }, _) | (_, When::Event(_)) => false,
            (_, When::Call(number)) => number == calls,
            (_, When::Write(number)) => is_write(call) && number == writes,
            (What::Answer(_), When::At(at)) => at.0 <= now,
            (_, When::At(at)) => is_write(call) && at.0 <= now,
        };
        let found = self.faults.iter().position(meets)?;
        Some(self.faults.remove(found))
    }

    fn strike_event(&mut self, kind: &str, now: u64) -> Option<Fault> {
        let count = self.counts.events.entry(kind.to_owned()).or_default();
        *count += 1;
        let meets = |fault: &Fault| match (&fault.what, fault.when) {
            (What::Watch { kind: of, .. }, When::Event(number)) => of == kind && number == *count,
            (What::Watch { kind: of, .. }, When::At(at)) => of == kind && at.0 <= now,
            _ => false,
        };
        let found = self.faults.iter().position(meets)?;
        Some(self.faults.remove(found))
    }
}

impl Faults for Injector {
    fn before(&self, call: &Call) -> Sandbox {
        let now = self.log.now();
        let mut state = self.state();
        if call.user_agent.is_empty() {
            return Sandbox::None;
        }
        if state.dead.contains(&call.user_agent) {
            return Sandbox::Hang;
        }
        if let Some(until) = state.paused.get(&call.user_agent).filter(|until| **until > now) {
            return Sandbox::Delay(Duration::from_millis(until - now));
        }
        if call.verb == "watch" {
            return Sandbox::None;
        }
        let fault = state.strike(call, now);
        let outage = state.outage.filter(|(_, until)| is_write(call) && now < *until);
        drop(state);
        if is_write(call) {
            self.log.asked(call, None);
        }
        if let Some(fault) = fault.as_ref().filter(|fault| !is_of_api(&fault.what)) {
            self.send(Command::Befalls(fault.what.clone()));
        }
        let Some(fault) = fault.filter(|fault| is_of_api(&fault.what)) else {
            return outage.map_or(Sandbox::None, |(answer, _)| Sandbox::Refuse(refusal(answer, call)));
        };
        self.log.note(Seen::Struck(fault.clone()));
        let mut state = self.state();
        let agent = call.user_agent.clone();
        match fault.what {
            What::CrashBefore => {
                state.dead.insert(agent.clone());
                self.send(Command::Crashed { agent });
                Sandbox::Hang
            }
            What::Pause(time) => {
                let until = now + time.0;
                state.paused.insert(agent.clone(), until);
                self.send(Command::Paused { agent, until });
                Sandbox::Delay(Duration::from_millis(time.0))
            }
            What::CrashAfter | What::Answer(Answer::Lost | Answer::Cut) => {
                state.after = Some(fault);
                Sandbox::None
            }
            What::Outage(answer, time) => {
                state.outage = Some((answer, now + time.0));
                Sandbox::Refuse(refusal(answer, call))
            }
            What::Answer(Answer::Timeout) => Sandbox::Hang,
            What::Answer(Answer::Reset) => Sandbox::Break,
            What::Answer(answer) => Sandbox::Refuse(refusal(answer, call)),
            _ => Sandbox::None,
        }
    }

    fn answered(&self, call: &Call, code: u16) {
        if is_write(call) && !call.user_agent.is_empty() {
            self.log.asked(call, Some(code));
        }
    }

    fn after(&self, call: &Call) -> Sandbox {
        let mut state = self.state();
        match state.after.take().map(|fault| fault.what) {
            Some(What::CrashAfter) => {
                let agent = call.user_agent.clone();
                state.dead.insert(agent.clone());
                self.send(Command::Crashed { agent });
                Sandbox::Hang
            }
            Some(What::Answer(Answer::Lost)) => Sandbox::Hang,
            Some(What::Answer(Answer::Cut)) => Sandbox::Break,
            _ => Sandbox::None,
        }
    }

    fn on_event(&self, call: &Call, _change: &Change) -> WatchFault {
        let now = self.log.now();
        let kind = call.resource.split('.').next().unwrap_or_default();
        let watch = (call.user_agent.clone(), kind.to_owned());
        let mut state = self.state();
        if let Some((left, until)) = state.lags.get_mut(&watch) {
            *left = left.saturating_sub(1);
            if *left > 0 && now < *until {
                return WatchFault::NotYet(Duration::from_millis(*until - now));
            }
            state.lags.remove(&watch);
            return WatchFault::Pass;
        }
        let Some(fault) = state.strike_event(kind, now) else { return WatchFault::Pass };
        let how = match &fault.what {
            What::Watch { how: WatchHow::Drop, .. } => WatchFault::Drop,
            What::Watch { how: WatchHow::Twice, .. } => WatchFault::Duplicate,
            What::Watch { how: WatchHow::Late(time), .. } => WatchFault::NotYet(Duration::from_millis(time.0)),
            What::Watch { how: WatchHow::Lag(_), .. } => WatchFault::NotYet(Duration::from_millis(LONGEST_LAG)),
            What::Watch { how: WatchHow::Expire, .. } => WatchFault::Expire,
            What::Watch { how: WatchHow::End, .. } => WatchFault::End,
            _ => WatchFault::Pass,
        };
        match &fault.what {
            What::Watch { how: WatchHow::Lag(events), .. } => {
                state.lags.insert(watch, (*events, now + LONGEST_LAG));
            }
            What::Watch { how: WatchHow::Late(time), .. } => {
                state.lags.insert(watch, (u32::MAX, now + time.0));
            }
            _ => {}
        }
        drop(state);
        self.log.note(Seen::Struck(fault));
        how
    }
}

/// The refusal, in a server's words.
fn refusal(answer: Answer, call: &Call) -> Refusal {
    let what = format!("{} {:?}", call.resource, call.name);
    let (code, reason, message) = match answer {
        Answer::Conflict => {
            let why = "the object has been modified; please apply your changes to the latest version and try again";
            (409, "Conflict", format!("Operation cannot be fulfilled on {what}: {why}"))
        }
        // As a proxy says it, or a server that has not taken up all kinds yet: it is not said of the object.
        Answer::NotFound => (404, "NotFound", "the server could not find the requested resource".to_owned()),
        Answer::Invalid => (422, "Invalid", format!("{what} is invalid: spec: Invalid value: simulated")),
        Answer::Forbidden => (403, "Forbidden", format!("{what} is forbidden: simulated")),
        Answer::TooMany => (429, "TooManyRequests", "too many requests, please try again later".to_owned()),
        Answer::Internal => (500, "InternalError", "Internal error occurred: simulated".to_owned()),
        Answer::Denied => {
            (400, "BadRequest", "admission webhook \"simulated.example\" denied the request: simulated".to_owned())
        }
        _ => (503, "ServiceUnavailable", "the server is currently unable to handle the request".to_owned()),
    };
    let retry_after_seconds = if answer == Answer::TooMany { 2 } else { 0 };
    let details = StatusDetails {
        name: call.name.clone(),
        group: String::new(),
        kind: String::new(),
        uid: String::new(),
        causes: Vec::new(),
        retry_after_seconds,
    };
    Box::new(Status {
        status: Some(StatusSummary::Failure),
        code,
        message,
        metadata: None,
        reason: reason.to_owned(),
        details: Some(details),
    })
}
