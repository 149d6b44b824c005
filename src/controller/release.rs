//! DestinationRules that no Rollout refers to any more get back what a Rollout has put into them: a subset that is bound to
//! the pods of a Rollout that is gone reaches nobody.

use std::time::Duration;

use serde::Deserialize;
use tracing::{debug, warn};

use crate::api::names::MANAGED_BY;
use crate::api::resource::{DESTINATION_RULE, ObjectRef};
use crate::plan::Action;
use crate::traffic::istio::destination_rule;

use super::Shell;
use super::api::{CallError, Part};
use super::envelope::{Meta, Object};
use super::execute::{self, Subject};
use super::index::Index;
use super::watch;

/// Between two attempts to look for what was left behind.
const RETRY: Duration = Duration::from_secs(30);

/// Has DestinationRules watched if one of them bears the mark of a Rollout. They are watched as long as a Rollout refers to
/// one: this is for the last that did, and was deleted or changed while no controller was there to see it.
pub async fn look_for_leftovers(shell: &Shell) {
    loop {
        match is_any_marked(shell).await {
            Ok(true) => return shell.want(DESTINATION_RULE),
            // Neither without Istio nor without the right to its objects is there anything to give back.
            Ok(false) | Err(CallError::NotFound(_) | CallError::Refused { code: 401 | 403, .. }) => return,
            Err(error) => debug!(%error, "cannot look for DestinationRules that were left behind"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn is_any_marked(shell: &Shell) -> Result<bool, CallError> {
    #[derive(Deserialize)]
    struct Item {
        metadata: Meta,
    }

    let mut marked = false;
    let listed = watch::pages(shell, DESTINATION_RULE, Part::Metadata, |rules: Vec<Item>| {
        marked |= rules.iter().any(|rule| rule.metadata.annotation(MANAGED_BY).is_some());
    });
    listed.await?;
    Ok(marked)
}

/// Releases what the Rollout has left behind. What fails is tried again at the next occasion.
pub async fn release(shell: &Shell, rollout: &ObjectRef) {
    let left = left_behind(&shell.index(), rollout);
    if left.is_empty() {
        return;
    }
    if shell.index().entry_of(rollout).is_none() {
        // It may be another controller's: only one that is really gone has left anything behind.
        match shell.api.read_metadata(rollout).await {
            Err(CallError::NotFound(_)) => {}
            Ok(_) => return,
            Err(error) => {
                warn!(object = %rollout, %error, "cannot tell whether its DestinationRules are still in use");
                return;
            }
        }
    }
    let mut subject = Subject { reference: rollout.clone(), uid: String::new(), resource_version: String::new() };
    execute::actions(shell, &mut subject, &left, &[]).await;
}

/// The writes that release the DestinationRules that the Rollout has taken and does not refer to.
fn left_behind(index: &Index, rollout: &ObjectRef) -> Vec<Action> {
    let referred = index.references(rollout).map(|references| &references.objects);
    let left = index.managed(rollout).filter_map(|(rule, entry)| match &entry.object {
        Object::Route(object) if !entry.deleting => {
            let used = referred.is_some_and(|objects| objects.contains(rule));
            (!used).then(|| destination_rule::release(rule, object)).flatten()
        }
        _ => None,
    });
    left.collect()
}
