//! Scripts: what goes wrong, and when, as one line of text.
//!
//! ```text
//! gateway#7 | write 12: crash before | 95s: user abort | call 31: answer 409
//! ```
//!
//! First the base scenario and the seed of everything random in it, then faults. A fault that names a call, a write or an
//! event meets exactly that one; a fault with a time meets whatever comes next.

use std::fmt;
use std::str::FromStr;

/// A life to be lived.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    /// The name of the base scenario.
    pub base: String,
    /// Of the controller's jitter, of uids and of traffic.
    pub seed: u64,
    /// Seconds after the start before which the life does not end; 0 ends it with its base scenario.
    pub horizon: u64,
    pub faults: Vec<Fault>,
}

/// One thing that goes wrong, or that a user does.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    pub when: When,
    pub what: What,
}

/// When. Calls, writes and events are counted from 1, over all lives of the controller.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    /// At this time, or at the next occasion after it.
    At(Millis),
    /// At this request to the API server that is no watch.
    Call(u32),
    /// At this request that changes something.
    Write(u32),
    /// At this event of the kind's watch.
    Event(u32),
}

/// Milliseconds since the start, or for so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u64);

/// What.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    CrashBefore,
    CrashAfter,
    Answer(Answer),
    Watch {
        /// The plural of the kind.
        kind: String,
        how: WatchHow,
    },
    /// From this write on every write is answered so, for this time.
    Outage(Answer, Millis),
    /// The leader stands still at its next write while another one takes over, and goes on with it after this time.
    Pause(Millis),
    /// The clock of the controller is set by so many milliseconds.
    Clock(i64),
    Metrics(Metrics, Millis),
    Router(Router, Millis),
    User(User),
    Evict(Version),
    /// No pod of the namespace can be made beyond the present ones.
    Quota(Millis),
    /// Pods of the version are not ready.
    Unready(Version, Millis),
    /// A node is lost with its pods.
    Node(Millis),
    /// The controller of ReplicaSets hears of every change so much later.
    Behind(Millis, Millis),
    /// The endpoints of Services follow so much later. Whoever makes pods fewer that have traffic loses requests then.
    Endpoints(Millis, Millis),
    /// Somebody else edits an object of the release.
    Edit(Edit),
}

/// How a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Conflict,
    NotFound,
    Invalid,
    Forbidden,
    TooMany,
    Internal,
    Unavailable,
    /// An admission webhook says no.
    Denied,
    /// Nothing is done and no answer comes.
    Timeout,
    /// It is done, and no answer comes.
    Lost,
    /// The connection breaks; nothing is done.
    Reset,
    /// It is done, and the connection breaks.
    Cut,
}

/// What becomes of a watch event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchHow {
    Drop,
    Twice,
    /// It and what follows arrive later.
    Late(Millis),
    /// It and what follows wait until there are so many more, or for a minute.
    Lag(u32),
    /// The watch is told that its version is forgotten.
    Expire,
    /// The watch breaks.
    End,
}

/// What the metric provider answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metrics {
    Empty,
    NaN,
    Inf,
    Negative,
    Error,
    Hang,
    /// A bad release.
    Bad,
}

/// How gateways treat routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Router {
    /// They say so when they have followed, after so long.
    Slow(Millis),
    /// They say so at once, and follow after so long.
    Late(Millis),
    /// They say so, and do not follow.
    Lies,
    /// They say nothing and do not follow.
    Silent,
    /// They say that they do not follow.
    Refuses,
}

/// What users do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {
    /// The image gets this tag.
    Release(String),
    Undo,
    Abort,
    Retry,
    Promote,
    PromoteFull,
    Pause,
    Resume,
    Scale(u32),
    Restart,
    /// The steps are other ones.
    Steps,
    /// Canary becomes blue-green and the other way round.
    Swap,
    /// The Rollout is deleted and made again.
    Delete,
    /// The spec becomes an invalid one.
    Break,
}

/// Which pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Stable,
    Canary,
}

/// Which object somebody else edits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// The weights of the route go the other way.
    Route,
    /// The selector of the stable (active) Service loses its hash.
    Service,
    /// An annotation that nobody reads.
    Note,
}

impl Answer {
    pub const ALL: [Self; 12] = [
        Self::Conflict,
        Self::NotFound,
        Self::Invalid,
        Self::Forbidden,
        Self::TooMany,
        Self::Internal,
        Self::Unavailable,
        Self::Denied,
        Self::Timeout,
        Self::Lost,
        Self::Reset,
        Self::Cut,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Conflict => "409",
            Self::NotFound => "404",
            Self::Invalid => "422",
            Self::Forbidden => "403",
            Self::TooMany => "429",
            Self::Internal => "500",
            Self::Unavailable => "503",
            Self::Denied => "denied",
            Self::Timeout => "timeout",
            Self::Lost => "lost",
            Self::Reset => "reset",
            Self::Cut => "cut",
        }
    }
}

impl Fault {
    pub fn new(when: When, what: What) -> Self {
        Self { when, what }
    }

    /// For how long it lasts beyond its beginning.
    pub fn lasts(&self) -> Millis {
        match &self.what {
            What::Metrics(_, time) | What::Router(_, time) | What::Quota(time) | What::Unready(_, time) => *time,
            What::Node(time) | What::Pause(time) => *time,
            What::Behind(delay, time) | What::Endpoints(delay, time) => Millis(time.0 + delay.0),
            What::Watch { how: WatchHow::Late(time), .. } => *time,
            What::Watch { how: WatchHow::Lag(_), .. } => Millis(60_000),
            // Nobody knows of it: whoever waits for it reads after 20 s, and a user's deed is found when all is read anew.
            What::Watch { how: WatchHow::Drop, .. } => Millis(50_000),
            // A call is given up after 15 s; the first list of a new controller, without which it decides nothing, after 30 s.
            What::Answer(Answer::Timeout | Answer::Lost) => Millis(30_000),
            // Who has failed for so long waits for as long before the next attempt.
            What::Outage(_, time) => Millis(2 * time.0),
            _ => Millis(0),
        }
    }

    /// The kind of fault, as the coverage matrix names it.
    pub fn family(&self) -> &'static str {
        match &self.what {
            What::CrashBefore | What::CrashAfter => "A1 crash",
            What::Watch { how: WatchHow::Late(_) | WatchHow::Lag(_), .. } => "A2 stale",
            What::Watch { .. } => "A3 watch",
            What::Answer(Answer::Lost | Answer::Cut) => "A4 lost",
            What::Answer(_) => "A4 answer",
            What::Outage(..) => "A4 outage",
            What::Pause(_) => "A5 leaders",
            What::Clock(_) => "A6 clock",
            What::Metrics(..) => "A7 metrics",
            What::User(User::Release(_) | User::Undo) => "A8 template",
            What::User(User::Abort | User::Retry) => "A8 abort",
            What::User(_) => "A8 edit",
            What::Router(..) => "A9 router",
            What::Edit(_) => "A9 foreign",
            What::Evict(_)
            | What::Quota(_)
            | What::Unready(..)
            | What::Node(_)
            | What::Behind(..)
            | What::Endpoints(..) => "A9 pods",
        }
    }

    /// All kinds.
    pub const FAMILIES: [&str; 15] = [
        "A1 crash",
        "A2 stale",
        "A3 watch",
        "A4 answer",
        "A4 lost",
        "A4 outage",
        "A5 leaders",
        "A6 clock",
        "A7 metrics",
        "A8 template",
        "A8 abort",
        "A8 edit",
        "A9 router",
        "A9 foreign",
        "A9 pods",
    ];
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.base, self.seed)?;
        if self.horizon > 0 {
            write!(f, " for {}s", self.horizon)?;
        }
        self.faults.iter().try_for_each(|fault| write!(f, " | {fault}"))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.when, self.what)
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(time) => write!(f, "{time}"),
            Self::Call(number) => write!(f, "call {number}"),
            Self::Write(number) => write!(f, "write {number}"),
            Self::Event(number) => write!(f, "event {number}"),
        }
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) { write!(f, "{}s", self.0 / 1000) } else { write!(f, "{}ms", self.0) }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CrashBefore => f.write_str("crash before"),
            Self::CrashAfter => f.write_str("crash after"),
            Self::Answer(answer) => write!(f, "answer {}", answer.word()),
            Self::Outage(answer, time) => write!(f, "answers {} {time}", answer.word()),
            Self::Watch { kind, how } => write!(f, "watch {kind} {how}"),
            Self::Pause(time) => write!(f, "leader {time}"),
            Self::Clock(by) => write!(f, "clock {by}ms"),
            Self::Metrics(metrics, time) => write!(f, "metrics {} {time}", metrics.word()),
            Self::Router(router, time) => match router {
                Router::Slow(delay) => write!(f, "router slow {delay} {time}"),
                Router::Late(delay) => write!(f, "router late {delay} {time}"),
                Router::Lies => write!(f, "router lies {time}"),
                Router::Silent => write!(f, "router silent {time}"),
                Router::Refuses => write!(f, "router refuses {time}"),
            },
            Self::User(user) => write!(f, "user {user}"),
            Self::Evict(version) => write!(f, "evict {}", version.word()),
            Self::Quota(time) => write!(f, "quota {time}"),
            Self::Unready(version, time) => write!(f, "unready {} {time}", version.word()),
            Self::Node(time) => write!(f, "node {time}"),
            Self::Endpoints(delay, time) => write!(f, "endpoints late {delay} {time}"),
            Self::Behind(delay, time) => write!(f, "replicasets behind {delay} {time}"),
            Self::Edit(Edit::Route) => f.write_str("edit route"),
            Self::Edit(Edit::Service) => f.write_str("edit service"),
            Self::Edit(Edit::Note) => f.write_str("edit note"),
        }
    }
}

impl fmt::Display for WatchHow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drop => f.write_str("drop"),
            Self::Twice => f.write_str("twice"),
            Self::Late(time) => write!(f, "late {time}"),
            Self::Lag(events) => write!(f, "lag {events}"),
            Self::Expire => f.write_str("expire"),
            Self::End => f.write_str("end"),
        }
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Release(tag) => write!(f, "release {tag}"),
            Self::Scale(replicas) => write!(f, "scale {replicas}"),
            Self::Undo => f.write_str("undo"),
            Self::Abort => f.write_str("abort"),
            Self::Retry => f.write_str("retry"),
            Self::Promote => f.write_str("promote"),
            Self::PromoteFull => f.write_str("promote-full"),
            Self::Pause => f.write_str("pause"),
            Self::Resume => f.write_str("resume"),
            Self::Restart => f.write_str("restart"),
            Self::Steps => f.write_str("steps"),
            Self::Swap => f.write_str("swap"),
            Self::Delete => f.write_str("delete"),
            Self::Break => f.write_str("break"),
        }
    }
}

impl Metrics {
    pub const ALL: [Self; 7] = [Self::Empty, Self::NaN, Self::Inf, Self::Negative, Self::Error, Self::Hang, Self::Bad];

    fn word(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::NaN => "nan",
            Self::Inf => "inf",
            Self::Negative => "negative",
            Self::Error => "error",
            Self::Hang => "hang",
            Self::Bad => "bad",
        }
    }
}

impl Version {
    fn word(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Canary => "canary",
        }
    }
}

/// A line that is no script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAScript {
    /// The part that could not be read.
    pub part: String,
}

impl fmt::Display for NotAScript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a script: {:?}; one looks like: gateway#7 | write 12: crash before | 95s: user abort", self.part)
    }
}

impl std::error::Error for NotAScript {}

impl FromStr for Script {
    type Err = NotAScript;

    fn from_str(text: &str) -> Result<Self, NotAScript> {
        let wrong = |part: &str| NotAScript { part: part.to_owned() };
        let mut parts = text.split('|').map(str::trim);
        let head = parts.next().unwrap_or_default();
        let (name, horizon) = match head.split_once(" for ") {
            Some((name, time)) => (name, time.parse::<Millis>()?.0 / 1000),
            None => (head, 0),
        };
        let (base, seed) = name.split_once('#').ok_or_else(|| wrong(head))?;
        let seed = seed.trim().parse().map_err(|_| wrong(head))?;
        let faults = parts.map(|part| fault(part).ok_or_else(|| wrong(part))).collect::<Result<_, _>>()?;
        Ok(Self { base: base.to_owned(), seed, horizon, faults })
    }
}

impl FromStr for Millis {
    type Err = NotAScript;

    fn from_str(text: &str) -> Result<Self, NotAScript> {
        millis(text).ok_or_else(|| NotAScript { part: text.to_owned() })
    }
}

fn millis(text: &str) -> Option<Millis> {
    match text.strip_suffix("ms") {
        Some(number) => number.parse().ok().map(Millis),
        None => text.strip_suffix('s')?.parse::<u64>().ok().map(|seconds| Millis(seconds * 1000)),
    }
}

fn fault(text: &str) -> Option<Fault> {
    let (when, what) = text.split_once(':')?;
    let when = match when.trim().split_once(' ') {
        Some(("call", number)) => When::Call(number.parse().ok()?),
        Some(("write", number)) => When::Write(number.parse().ok()?),
        Some(("event", number)) => When::Event(number.parse().ok()?),
        Some(_) => return None,
        None => When::At(millis(when.trim())?),
    };
    let words: Vec<&str> = what.split_whitespace().collect();
    let version = |word: &str| [Version::Stable, Version::Canary].into_iter().find(|version| version.word() == word);
    let what = match words.as_slice() {
        ["crash", "before"] => What::CrashBefore,
        ["crash", "after"] => What::CrashAfter,
        ["answer", word] => What::Answer(Answer::ALL.into_iter().find(|answer| answer.word() == *word)?),
        ["answers", word, time] => {
            What::Outage(Answer::ALL.into_iter().find(|answer| answer.word() == *word)?, millis(time)?)
        }
        ["watch", kind, how @ ..] => {
            let how = match how {
                ["drop"] => WatchHow::Drop,
                ["twice"] => WatchHow::Twice,
                ["late", time] => WatchHow::Late(millis(time)?),
                ["lag", events] => WatchHow::Lag(events.parse().ok()?),
                ["expire"] => WatchHow::Expire,
                ["end"] => WatchHow::End,
                _ => return None,
            };
            What::Watch { kind: (*kind).to_owned(), how }
        }
        ["leader", time] => What::Pause(millis(time)?),
        ["clock", by] => What::Clock(by.strip_suffix("ms")?.parse().ok()?),
        ["metrics", word, time] => {
            What::Metrics(Metrics::ALL.into_iter().find(|metrics| metrics.word() == *word)?, millis(time)?)
        }
        ["router", "slow", delay, time] => What::Router(Router::Slow(millis(delay)?), millis(time)?),
        ["router", "late", delay, time] => What::Router(Router::Late(millis(delay)?), millis(time)?),
        ["router", "lies", time] => What::Router(Router::Lies, millis(time)?),
        ["router", "silent", time] => What::Router(Router::Silent, millis(time)?),
        ["router", "refuses", time] => What::Router(Router::Refuses, millis(time)?),
        ["user", user @ ..] => What::User(match user {
            ["release", tag] => User::Release((*tag).to_owned()),
            ["scale", replicas] => User::Scale(replicas.parse().ok()?),
            ["undo"] => User::Undo,
            ["abort"] => User::Abort,
            ["retry"] => User::Retry,
            ["promote"] => User::Promote,
            ["promote-full"] => User::PromoteFull,
            ["pause"] => User::Pause,
            ["resume"] => User::Resume,
            ["restart"] => User::Restart,
            ["steps"] => User::Steps,
            ["swap"] => User::Swap,
            ["delete"] => User::Delete,
            ["break"] => User::Break,
            _ => return None,
        }),
        ["evict", which] => What::Evict(version(which)?),
        ["quota", time] => What::Quota(millis(time)?),
        ["unready", which, time] => What::Unready(version(which)?, millis(time)?),
        ["node", time] => What::Node(millis(time)?),
        ["endpoints", "late", delay, time] => What::Endpoints(millis(delay)?, millis(time)?),
        ["replicasets", "behind", delay, time] => What::Behind(millis(delay)?, millis(time)?),
        ["edit", "route"] => What::Edit(Edit::Route),
        ["edit", "service"] => What::Edit(Edit::Service),
        ["edit", "note"] => What::Edit(Edit::Note),
        _ => return None,
    };
    Some(Fault { when, what })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_read_back_as_it_was_printed() {
        let line = "gateway#7 for 3600s | write 12: crash before | write 1: crash after | call 31: answer 409 \
                    | call 2: answer lost | event 4: watch replicasets drop | 95s: watch httproutes late 1500ms \
                    | 95s: watch services lag 3 | write 4: leader 12s | 10s: clock -3600000ms | 95s: metrics nan 30s \
                    | 95s: router late 4s 60s | 95s: router lies 60s | 95s: user release green | 95s: user scale 8 \
                    | 95s: user abort | 95s: evict stable | 95s: quota 30s | 95s: unready canary 20s | 95s: node 20s \
                    | 95s: replicasets behind 300ms 20s | 95s: endpoints late 3s 20s \
                    | 1s: edit route | 2s: edit service | write 3: answers 403 10s | 5s: user break";
        let script: Script = line.parse().unwrap();
        assert_eq!(script.faults.len(), 25);
        assert_eq!(
            script.to_string().split_whitespace().collect::<Vec<_>>(),
            line.split_whitespace().collect::<Vec<_>>()
        );
        assert_eq!(script.to_string().parse::<Script>().unwrap(), script);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (line, part) in
            [("gateway", "gateway"), ("gateway#1 | call 3: answer 418", "call 3: answer 418"), ("g#x", "g#x")]
        {
            assert_eq!(line.parse::<Script>().unwrap_err().part, part);
        }
    }
}
