//! Scenarios that lead to where the others do not come: what goes wrong in them is a part of the story. They are small in
//! number of faults: crashes and second leaders, and whatever time brings.

use std::time::Duration;

use super::manifests::{
    BASIC, BLUE_GREEN, DEADLINE, DYNAMIC, EXPERIMENT, GATEWAY, INLINE, JUDGED_BLUE_GREEN, NGINX, SHORT_HISTORY,
    SUBSETS, UNDECIDED, WINDOW,
};
use super::table::{release, until};
use super::{Base, Goal, Step};
use crate::observe::ROLLOUTS;
use crate::script::{Answer, Metrics, Millis, Router, User, Version, What};

/// All of them.
pub static PATHS: &[Base] = &[
    // Three versions without a router, and one of them is forgotten.
    path("basic-superseded", SHORT_HISTORY, Goal::Alone("red"), || {
        vec![
            release("green"),
            until(Goal::PausedAt(1, "green")),
            release("red"),
            until(Goal::PausedAt(1, "red")),
            user(User::Promote),
        ]
    }),
    // ReplicaSets report late, and an abort comes while stable still reports a pod that has just been deleted.
    path("reported-late", BASIC, Goal::Aborted("blue"), || {
        vec![
            release("green"),
            until(Goal::PausedAt(1, "green")),
            Step::Befall(What::Behind(Millis(1_000), Millis(15_000))),
            user(User::Promote),
            Step::Wait(Duration::from_millis(1_500)),
            user(User::Abort),
        ]
    }),
    // Half of the traffic is at a version that another one replaces.
    path("superseded-late", GATEWAY, Goal::Alone("red"), || {
        vec![
            release("green"),
            until(Goal::PausedAt(1, "green")),
            user(User::Promote),
            until(Goal::PausedAt(3, "green")),
            release("red"),
            until(Goal::PausedAt(1, "red")),
            user(User::Promote),
        ]
    }),
    // Gateways follow four seconds later than they say, and stable shrinks behind its weight.
    path("dynamic-behind-late-gateways", DYNAMIC, Goal::Alone("green"), || {
        vec![
            Step::Befall(What::Router(Router::Late(Millis(4_000)), Millis(600_000))),
            release("green"),
            until(Goal::PausedAt(1, "green")),
            user(User::Promote),
        ]
    }),
    path("subsets-superseded", SUBSETS, Goal::Aborted("blue"), || {
        vec![
            release("green"),
            until(Goal::PausedAt(1, "green")),
            release("red"),
            until(Goal::PausedAt(1, "red")),
            user(User::Abort),
        ]
    }),
    path("nginx-abort", NGINX, Goal::Aborted("blue"), || {
        vec![release("green"), until(Goal::PausedAt(1, "green")), user(User::Abort)]
    }),
    // An update that was aborted at half of the traffic begins anew.
    path("retry", GATEWAY, Goal::Alone("green"), || {
        vec![
            release("green"),
            until(Goal::PausedAt(1, "green")),
            user(User::Promote),
            until(Goal::PausedAt(3, "green")),
            user(User::Abort),
            until(Goal::Aborted("blue")),
            user(User::Retry),
            until(Goal::PausedAt(1, "green")),
            user(User::Promote),
        ]
    }),
    path("abort-at-rest", GATEWAY, Goal::Alone("blue"), || vec![user(User::Abort)]),
    // A version that never gets ready was to be promoted at once.
    path("promote-full-abort", GATEWAY, Goal::Aborted("blue"), || {
        vec![
            release("sick"),
            until(Goal::Updating("sick")),
            user(User::PromoteFull),
            Step::Wait(Duration::from_secs(3)),
            user(User::Abort),
        ]
    }),
    path("abort-broken", GATEWAY, Goal::Aborted("blue"), || {
        vec![release("green"), until(Goal::PausedAt(1, "green")), user(User::Break), user(User::Abort)]
    }),
    path("never-ready", DEADLINE, Goal::Aborted("blue"), || vec![release("sick")]),
    // Stable is in ruins, and its successor the cure.
    path("bad-stable", GATEWAY, Goal::Alone("green"), || {
        vec![
            Step::Befall(What::Unready(Version::Stable, Millis(900_000))),
            release("green"),
            until(Goal::PausedAt(1, "green")),
            user(User::Promote),
        ]
    }),
    // Endpoints follow late: the version that was active until just now still gets requests.
    path("switch-before-endpoints", BLUE_GREEN, Goal::Alone("green"), || {
        vec![Step::Befall(What::Endpoints(Millis(3_000), Millis(600_000))), release("green")]
    }),
    // The version that may come back at once gets one pod, and for half a minute no more.
    path("window-short-of-pods", WINDOW, Goal::Alone("blue"), || {
        vec![
            release("green"),
            until(Goal::Alone("green")),
            Step::Wait(Duration::from_secs(2)),
            Step::Befall(What::Quota(Millis(30_000))),
            Step::Wait(Duration::from_millis(200)),
            user(User::Scale(3)),
            Step::Wait(Duration::from_secs(3)),
            release("blue"),
        ]
    }),
    path("restart", GATEWAY, Goal::Alone("blue"), || {
        vec![user(User::Scale(1)), until(Goal::Sized(1)), user(User::Restart)]
    }),
    path("nan", INLINE, Goal::Aborted("blue"), || vec![Step::Metrics(Some(Metrics::NaN)), release("green")]),
    path("no-data", INLINE, Goal::Aborted("blue"), || vec![Step::Metrics(Some(Metrics::Empty)), release("green")]),
    path("metrics-down", INLINE, Goal::Aborted("blue"), || vec![Step::Metrics(Some(Metrics::Error)), release("green")]),
    path("late-bad", INLINE, Goal::Aborted("blue"), || {
        vec![release("green"), until(Goal::Measured(1)), Step::Metrics(Some(Metrics::Bad))]
    }),
    path("undecided", UNDECIDED, Goal::Aborted("blue"), || {
        vec![
            Step::Metrics(Some(Metrics::NaN)),
            release("green"),
            until(Goal::PausedAt(1, "green")),
            Step::Wait(Duration::from_secs(5)),
            user(User::Abort),
        ]
    }),
    path("judged-before", JUDGED_BLUE_GREEN, Goal::Aborted("blue"), || {
        vec![Step::Metrics(Some(Metrics::Bad)), release("green")]
    }),
    path("judged-after", JUDGED_BLUE_GREEN, Goal::Aborted("blue"), || {
        vec![release("green"), until(Goal::Measured(2)), Step::Metrics(Some(Metrics::Bad))]
    }),
    path("judged-good", JUDGED_BLUE_GREEN, Goal::Alone("green"), || vec![release("green")]),
    path("experiment-abort", EXPERIMENT, Goal::Aborted("blue"), || {
        vec![release("green"), until(Goal::Measured(1)), user(User::Abort)]
    }),
    path("experiment-bad", EXPERIMENT, Goal::Aborted("blue"), || {
        vec![Step::Metrics(Some(Metrics::Bad)), release("green")]
    }),
    // Back to the stable version, without an abort, whose pods have to come again first.
    path("undone", DYNAMIC, Goal::Alone("blue"), || {
        vec![release("green"), until(Goal::PausedAt(1, "green")), user(User::Undo)]
    }),
    // An undo while the Service of the canary still has all of the traffic, and the version before all of its pods.
    path("undone-at-once", GATEWAY, Goal::Alone("blue"), || {
        vec![
            release("green"),
            until(Goal::PausedAt(1, "green")),
            user(User::Promote),
            until(Goal::PausedAt(3, "green")),
            Step::Wait(Duration::from_secs(10)),
            user(User::Promote),
            until(Goal::Released("green")),
            release("blue"),
            until(Goal::PausedAt(1, "blue")),
            user(User::Promote),
        ]
    }),
    // The same behind gateways that still send the canary's Service everything.
    path("undone-behind-late-gateways", GATEWAY, Goal::Alone("blue"), || {
        vec![
            Step::Befall(What::Router(Router::Late(Millis(4_000)), Millis(600_000))),
            release("green"),
            until(Goal::PausedAt(1, "green")),
            user(User::Promote),
            until(Goal::Released("green")),
            release("blue"),
            until(Goal::PausedAt(1, "blue")),
            user(User::Promote),
        ]
    }),
    // What a user wants is there, and nothing can be done about it yet: states that pass at once otherwise.
    path("unheard-promote", GATEWAY, Goal::Alone("green"), || unheard(User::Promote)),
    path("unheard-promote-full", GATEWAY, Goal::Alone("green"), || unheard(User::PromoteFull)),
    path("unheard-abort", GATEWAY, Goal::Aborted("blue"), || unheard(User::Abort)),
];

const fn path(name: &'static str, manifest: &'static str, ends: Goal, steps: fn() -> Vec<Step>) -> Base {
    Base { name, manifest, template_in: ROLLOUTS, steps, ends }
}

/// What a user does while every write is refused.
fn unheard(wish: User) -> Vec<Step> {
    vec![
        release("green"),
        until(Goal::PausedAt(1, "green")),
        Step::Befall(What::Outage(Answer::Unavailable, Millis(15_000))),
        Step::Wait(Duration::from_millis(100)),
        user(wish),
        Step::Wait(Duration::from_secs(15)),
    ]
}

fn user(user: User) -> Step {
    Step::Do(user)
}
