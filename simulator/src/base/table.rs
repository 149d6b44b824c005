//! The base scenarios.

use super::manifests::{
    BACKGROUND, BASIC, BLUE_GREEN, DYNAMIC, EXPERIMENT, GATEWAY, INLINE, ISTIO, NGINX, SUBSETS, WINDOW, WORKLOAD_REF,
};
use super::{Base, Goal, Step};
use crate::observe::ROLLOUTS;
use crate::script::{Metrics, User};

/// Those that every fault is tried in, the small ones first. Random lives begin with one of them.
pub static ALL: &[Base] = &[
    Base {
        name: "basic",
        manifest: BASIC,
        template_in: ROLLOUTS,
        steps: || vec![release("green"), until(Goal::PausedAt(1, "green")), Step::Do(User::Promote)],
        ends: Goal::Alone("green"),
    },
    Base {
        name: "gateway",
        manifest: GATEWAY,
        template_in: ROLLOUTS,
        steps: || vec![release("green"), until(Goal::PausedAt(1, "green")), Step::Do(User::Promote)],
        ends: Goal::Alone("green"),
    },
    Base {
        name: "nginx",
        manifest: NGINX,
        template_in: ROLLOUTS,
        steps: || vec![release("green"), until(Goal::PausedAt(1, "green")), Step::Do(User::Promote)],
        ends: Goal::Alone("green"),
    },
    Base {
        name: "istio",
        manifest: ISTIO,
        template_in: ROLLOUTS,
        steps: || vec![release("green"), until(Goal::PausedAt(1, "green")), Step::Do(User::Promote)],
        ends: Goal::Alone("green"),
    },
    Base {
        name: "subsets",
        manifest: SUBSETS,
        template_in: ROLLOUTS,
        steps: || vec![release("green"), until(Goal::PausedAt(1, "green")), Step::Do(User::Promote)],
        ends: Goal::Alone("green"),
    },
    Base {
        name: "blue-green",
        manifest: BLUE_GREEN,
        template_in: ROLLOUTS,
        steps: || vec![release("green")],
        ends: Goal::Alone("green"),
    },
    Base {
        name: "abort",
        manifest: GATEWAY,
        template_in: ROLLOUTS,
        steps: || vec![release("green"), until(Goal::PausedAt(1, "green")), Step::Do(User::Abort)],
        ends: Goal::Aborted("blue"),
    },
    Base {
        name: "superseded",
        manifest: GATEWAY,
        template_in: ROLLOUTS,
        steps: || {
            vec![
                release("green"),
                until(Goal::PausedAt(1, "green")),
                release("red"),
                until(Goal::PausedAt(1, "red")),
                Step::Do(User::Promote),
            ]
        },
        ends: Goal::Alone("red"),
    },
    Base {
        name: "window",
        manifest: WINDOW,
        template_in: ROLLOUTS,
        steps: || vec![release("green"), until(Goal::Alone("green")), release("blue")],
        ends: Goal::Alone("blue"),
    },
    Base {
        name: "dynamic",
        manifest: DYNAMIC,
        template_in: ROLLOUTS,
        steps: || vec![release("green"), until(Goal::PausedAt(1, "green")), Step::Do(User::Promote)],
        ends: Goal::Alone("green"),
    },
    Base {
        name: "dynamic-abort",
        manifest: DYNAMIC,
        template_in: ROLLOUTS,
        steps: || vec![release("green"), until(Goal::PausedAt(1, "green")), Step::Do(User::Abort)],
        ends: Goal::Aborted("blue"),
    },
    Base {
        name: "experiment",
        manifest: EXPERIMENT,
        template_in: ROLLOUTS,
        steps: || vec![release("green")],
        ends: Goal::Alone("green"),
    },
    Base {
        name: "workload-ref",
        manifest: WORKLOAD_REF,
        template_in: "deployments.apps",
        steps: || vec![release("green"), until(Goal::PausedAt(1, "green")), Step::Do(User::Promote)],
        ends: Goal::Alone("green"),
    },
    Base {
        name: "scaled",
        manifest: GATEWAY,
        template_in: ROLLOUTS,
        steps: || {
            vec![
                release("green"),
                until(Goal::PausedAt(1, "green")),
                Step::Do(User::Scale(8)),
                until(Goal::Sized(8)),
                Step::Do(User::Scale(2)),
                until(Goal::Sized(2)),
                Step::Do(User::Promote),
            ]
        },
        ends: Goal::Alone("green"),
    },
    Base {
        name: "inline",
        manifest: INLINE,
        template_in: ROLLOUTS,
        steps: || vec![release("green")],
        ends: Goal::Alone("green"),
    },
    Base {
        name: "background-good",
        manifest: BACKGROUND,
        template_in: ROLLOUTS,
        steps: || vec![release("green")],
        ends: Goal::Alone("green"),
    },
    Base {
        name: "background-bad",
        manifest: BACKGROUND,
        template_in: ROLLOUTS,
        steps: || vec![Step::Metrics(Some(Metrics::Bad)), release("green")],
        ends: Goal::Aborted("blue"),
    },
];

pub(super) fn release(tag: &str) -> Step {
    Step::Do(User::Release(tag.to_owned()))
}

pub(super) fn until(goal: Goal) -> Step {
    Step::Until(goal)
}
