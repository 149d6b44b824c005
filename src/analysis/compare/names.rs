//! What a Rollout tells a comparison: how its versions are called, and what share of the requests the canary should get.

use crate::api::Rollout;
use crate::api::analysis::Metric;

/// Fills in the names of the Rollout's versions where a metric compares them by a source and has no names of its own.
///
/// A blue-green Rollout has no Services that canary and stable have for the whole of an analysis.
pub fn fill(metric: &mut Metric, rollout: &Rollout, stable_hash: &str, latest_hash: &str) {
    let Some(compare) = &mut metric.compare else { return };
    if compare.source.is_none() {
        return;
    }
    let name = rollout.metadata.name.as_deref().unwrap_or_default();
    compare.canary_replica_set.get_or_insert_with(|| format!("{name}-{latest_hash}"));
    compare.stable_replica_set.get_or_insert_with(|| format!("{name}-{stable_hash}"));
    let Some((canary, stable)) = services(rollout) else { return };
    for (named, service) in [(&mut compare.canary_service, canary), (&mut compare.stable_service, stable)] {
        if named.is_none() && !service.is_empty() {
            *named = Some(service.to_owned());
        }
    }
}

/// The Services of canary and stable.
fn services(rollout: &Rollout) -> Option<(&str, &str)> {
    let canary = rollout.spec.strategy.canary.as_ref()?;
    let Some(services) = &canary.ping_pong else {
        return Some((canary.canary_service(), canary.stable_service()));
    };
    let (ping, pong) = (services.ping_service.as_str(), services.pong_service.as_str());
    let stable_is_pong = rollout.status.as_ref().is_some_and(|status| status.canary.stable_ping_pong == "pong");
    Some(if stable_is_pong { (ping, pong) } else { (pong, ping) })
}

/// The canary's part of what canary and stable get together, from 0 to 1, as it is set at the router; `None` where no
/// router splits, or where requests reach the canary by more than its weight, as with headers and mirrors.
pub fn weight(rollout: &Rollout) -> Option<f64> {
    let canary = rollout.spec.strategy.canary.as_ref()?;
    if !canary.traffic_routing.as_ref()?.managed_routes.is_empty() {
        return None;
    }
    let weights = rollout.status.as_ref()?.canary.weights.as_ref()?;
    if weights.verified == Some(false) {
        return None;
    }
    let (canary, stable) = (f64::from(weights.canary.weight), f64::from(weights.stable.weight));
    // In millionths, which are stored exactly.
    (canary > 0.0 && stable > 0.0).then(|| (canary / (canary + stable) * 1e6).round() / 1e6)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rollout(canary: Value, status: Value) -> Rollout {
        serde_json::from_value(json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout",
            "metadata": {"name": "web"},
            "spec": {"strategy": {"canary": canary}},
            "status": {"canary": status},
        }))
        .unwrap()
    }

    fn filled(rollout: &Rollout, compare: Value) -> Value {
        let mut metric: Metric = serde_json::from_value(json!({"name": "errors", "compare": compare})).unwrap();
        fill(&mut metric, rollout, "old", "new");
        serde_json::to_value(metric.compare).unwrap()
    }

    #[test]
    fn a_rollout_names_its_versions_unless_the_metric_does() {
        let services = rollout(json!({"canaryService": "web-canary", "stableService": "web-stable"}), json!({}));
        assert_eq!(
            filled(&services, json!({"source": "traefik", "stableService": "mine"})),
            json!({
                "source": "traefik", "canaryService": "web-canary", "stableService": "mine",
                "canaryReplicaSet": "web-new", "stableReplicaSet": "web-old",
            })
        );
        let own = json!({"canary": {"total": "t", "errors": "e"}, "stable": {"total": "t", "errors": "e"}});
        assert_eq!(filled(&services, own.clone()), own);
        let bare = filled(&rollout(json!({}), json!({})), json!({"source": "red"}));
        assert_eq!(bare["canaryService"], Value::Null);
        let ping_pong = json!({"pingPong": {"pingService": "ping", "pongService": "pong"}});
        for (stable, canary) in [("", "pong"), ("ping", "pong"), ("pong", "ping")] {
            let rollout = rollout(ping_pong.clone(), json!({"stablePingPong": stable}));
            assert_eq!(filled(&rollout, json!({"source": "traefik"}))["canaryService"], canary, "stable is {stable}");
        }
    }

    #[test]
    fn a_weight_is_known_where_nothing_else_leads_to_the_canary() {
        let routing = json!({"trafficRouting": {"gatewayAPI": {"httpRoute": "web"}}});
        let weights =
            |canary: i32, stable: i32| json!({"weights": {"canary": {"weight": canary}, "stable": {"weight": stable}}});
        let with = |canary: &Value, status| weight(&rollout(canary.clone(), status));
        assert_eq!(with(&routing, weights(25, 75)), Some(0.25));
        // An experiment has the rest.
        assert_eq!(with(&routing, weights(10, 40)), Some(0.2));
        assert_eq!(with(&routing, weights(0, 100)), None);
        assert_eq!(with(&routing, json!({})), None);
        assert_eq!(with(&json!({}), weights(25, 75)), None);
        let headers = json!({"trafficRouting": {"managedRoutes": [{"name": "mine"}], "istio": {}}});
        assert_eq!(with(&headers, weights(25, 75)), None);
    }
}
