//! DestinationRules that no Rollout refers to any more get back what a Rollout has put into them: a subset that is bound to
//! the pods of a Rollout that is gone reaches nobody.

use tracing::warn;

use crate::api::resource::ObjectRef;
use crate::plan::Action;
use crate::traffic::istio::destination_rule;

use super::Shell;
use super::api::CallError;
use super::envelope::Object;
use super::execute::{self, Subject};
use super::index::Index;

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
