//! One script, from its beginning to its verdict.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{sleep, timeout};

use crate::base::{Base, Goal, Step};
use crate::checkers::Violation;
use crate::coverage::Coverage;
use crate::faults::{Counts, is_of_api};
use crate::observe::Seen;
use crate::purity;
use crate::script::{Fault, Script, User, What, When};
use crate::world::World;

/// Milliseconds in which a first release and each step of a base scenario come, beyond what goes wrong meanwhile.
const STEP: u64 = 150_000;
/// L1: the promised minute, the scale-down delay (30 s), the pauses after the last step that a user takes (10 s at most),
/// and the time of pods.
const END: u64 = 60_000 + 30_000 + 10_000 + 10_000;
/// The same where everything was turned upside down before: an Experiment, an analysis and all steps come anew.
const LAST_RELEASE: u64 = 240_000;
/// From the first release until users come.
const SETTLING: Duration = Duration::from_secs(1);
/// For what follows a release: events, what is cleaned up.
const TAIL: Duration = Duration::from_secs(10);
/// L1: what a watch has lost, be it a number in a status, is made up for, and what was refused for a while is tried again.
const MINUTE: Duration = Duration::from_secs(60);
/// L1: so long nothing is written.
const REST: Duration = Duration::from_secs(600);

/// What came of a life.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub violations: Vec<Violation>,
    pub coverage: Coverage,
    /// When it was asked for.
    pub trace: Option<String>,
    pub counts: Counts,
    /// The states that the Rollout has been in, and since when each time.
    pub states: Vec<(u64, &'static str)>,
    /// Milliseconds that passed in it.
    pub lasted: u64,
}

/// Lives a script, in virtual time and on this thread.
///
/// # Errors
/// An unknown base scenario, or one that is refused.
pub fn live(script: &Script, with_trace: bool) -> Result<Outcome> {
    let base = Base::named(&script.base).with_context(|| format!("no base scenario {:?}", script.base))?;
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().context("making a runtime")?;
    runtime.block_on(async {
        let world = World::start(script, base, with_trace)?;
        let life = Life { world: world.clone(), script, base };
        life.pass().await;
        if !world.runs() {
            world.log.accuse("L1", "the controller has ended by itself".to_owned());
        }
        if let Some(differs) = purity::differs() {
            world.log.accuse("S8", differs);
        }
        let lasted = world.log.now();
        world.stop();
        let (violations, coverage, trace) = world.log.end();
        let (counts, states) = (world.injector.counts(), world.log.states());
        Ok(Outcome { violations, coverage, trace, counts, states, lasted })
    })
}

struct Life<'a> {
    world: Arc<World>,
    script: &'a Script,
    base: &'static Base,
}

impl Life<'_> {
    async fn pass(&self) {
        let calm = self.script.faults.iter().all(|fault| is_of_api(&fault.what));
        let begun = self.reached(Goal::Released("blue"), STEP).await;
        if !begun && calm {
            return self.late("the first release");
        }
        // Endpoints and gateways follow the first release a little later.
        sleep(SETTLING).await;
        self.world.send();
        for step in (self.base.steps)() {
            match step {
                Step::Do(user) => self.world.user(&user).await,
                Step::Metrics(mood) => self.world.set_metrics(mood),
                Step::Befall(what) => self.world.clone().befalls(what),
                Step::Wait(time) => sleep(time).await,
                Step::Until(goal) => {
                    let reached = self.reached(goal, if calm { STEP } else { STEP / 2 }).await;
                    if !reached && calm {
                        return self.late(&format!("{goal:?}"));
                    }
                }
            }
        }
        let ends = if calm {
            self.base.ends
        } else {
            if self.script.faults.iter().any(|fault| !matches!(fault.when, When::At(_))) {
                // What comes with a write has not come before that.
                self.reached(self.base.ends, END).await;
            }
            self.outlast().await;
            Goal::Alone("final")
        };
        if !self.reached(ends, if calm { END } else { LAST_RELEASE }).await {
            return self.late(&format!("{ends:?}"));
        }
        let late = |fault: &Fault| matches!(fault.what, What::Watch { .. } | What::Outage(..));
        let is_late = self.script.faults.iter().any(late);
        sleep(if is_late { MINUTE } else { TAIL }).await;
        // What a call that is never answered holds up comes when it has been given up.
        let trouble = self.world.log.ask(|view| view.trouble).saturating_sub(self.world.log.now());
        if trouble > 0 {
            sleep(Duration::from_millis(trouble) + TAIL).await;
        }
        self.world.log.note(Seen::Settled);
        sleep(REST).await;
        self.world.log.look();
        if !self.world.log.ask(|view| ends.is_reached(view)) {
            self.world.log.accuse("L1", format!("{ends:?} was reached and did not stay"));
        }
    }

    /// Lets all that the script has in store happen, and be over; then users want one last thing.
    async fn outlast(&self) {
        let timed = self.script.faults.iter().filter_map(|fault| match fault.when {
            When::At(at) => Some(at.0 + fault.lasts().0),
            _ => None,
        });
        let last = timed.max().unwrap_or(0).max(self.script.horizon * 1000);
        sleep(Duration::from_millis(last.saturating_sub(self.world.log.now()) + 1)).await;
        self.world.heal();
        // A user who deletes a Rollout makes it again 5 s later.
        sleep(Duration::from_secs(6)).await;
        self.world.log.note(Seen::Over);
        if self.world.is_swapped() {
            self.world.user(&User::Swap).await;
        }
        self.world.mend();
        self.world.user(&User::Scale(4)).await;
        self.world.user(&User::Release("final".to_owned())).await;
        let world = self.world.clone();
        tokio::spawn(async move {
            // A user who wants to see it released: what waits for a person goes on.
            loop {
                sleep(Duration::from_secs(5)).await;
                let (waits, released) = world.log.ask(|view| {
                    let (spec, status) = (&view.rollout()["spec"], &view.rollout()["status"]);
                    let aborted = status["abort"] == true;
                    let wish = if aborted { User::Retry } else { User::Promote };
                    let waits = aborted || !status["pauseConditions"].is_null() || spec["paused"] == true;
                    (waits.then_some(wish), Goal::Alone("final").is_reached(view))
                });
                match waits {
                    _ if released => return,
                    Some(wish) => world.user(&wish).await,
                    None => {}
                }
            }
        });
    }

    /// Waits until a goal is reached, and so long beyond the last that goes wrong.
    async fn reached(&self, goal: Goal, within: u64) -> bool {
        let log = &self.world.log;
        let begin = log.now();
        loop {
            let news = log.news.notified();
            let (reached, now, trouble) =
                log.ask(|view| (goal.is_reached(view), view.now, view.trouble.max(view.router)));
            if reached {
                return true;
            }
            let now = now.max(log.now());
            let limit = begin.max(trouble) + within;
            if now > limit {
                return false;
            }
            // News or the limit: both are a reason to look again.
            let _ = timeout(Duration::from_millis(limit - now + 1), news).await;
        }
    }

    fn late(&self, what: &str) {
        let state = self.world.log.ask(|view| {
            let sets = view.sets().filter(|set| set.wanted > 0 || set.available > 0);
            let sets: Vec<String> = sets.map(|set| format!("{} {}/{}", set.name, set.available, set.wanted)).collect();
            let mut status = view.rollout()["status"].clone();
            if let Some(status) = status.as_object_mut() {
                status.remove("conditions");
            }
            format!("{status}, {}, users {:?}", sets.join(", "), view.plane)
        });
        self.world.log.accuse("L1", format!("{what} does not come: {state}"));
    }
}
