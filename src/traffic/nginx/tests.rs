use super::*;
use crate::traffic::fixtures;

fn rollout(nginx: Value) -> Rollout {
    fixtures::rollout(json!({"nginx": nginx}))
}

fn ingress(name: &str, service: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("{name}-uid"), "resourceVersion": "7"},
        "spec": {
            "ingressClassName": "nginx",
            "tls": [{"hosts": ["web.example"], "secretName": "web-tls"}],
            "rules": [
                {"host": "web.example", "http": {"paths": [
                    {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": service, "port": {"number": 80}}}},
                    {"path": "/api", "pathType": "Prefix", "backend": {"service": {"name": "api", "port": {"number": 80}}}},
                ]}},
                {"host": "other.example", "http": {"paths": [
                    {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "other", "port": {"number": 80}}}},
                ]}},
            ],
        },
    })
}

fn with<T>(rollout: &Rollout, ingresses: &[Value], f: impl FnOnce(&Context<'_>) -> T) -> T {
    fixtures::with(rollout, INGRESS, ingresses, f)
}

/// Executes a create or a merge patch.
fn after(action: &Action, object: Option<&Value>) -> Value {
    match action {
        Action::Create { body, .. } => body.clone(),
        Action::MergePatch { patch, .. } => {
            let mut object = object.unwrap().clone();
            json_patch::merge(&mut object, patch);
            object
        }
        other => panic!("{other}"),
    }
}

#[test]
fn the_companion_copies_only_the_rules_of_the_stable_service() {
    let rollout = rollout(json!({"stableIngress": "web"}));
    let stable = ingress("web", "web-stable");
    let actions =
        with(&rollout, &[stable], |context| NginxRouter.edit(context, Wanted::only(&Split::new(5, 100)))).unwrap();
    let [action] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(action.to_string(), "create Ingress shop/web-web-canary");
    let body = after(action, None);
    assert_eq!(
        body["spec"],
        json!({
            "ingressClassName": "nginx",
            "tls": [{"hosts": ["web.example"], "secretName": "web-tls"}],
            "rules": [{"host": "web.example", "http": {"paths": [
                {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web-canary", "port": {"number": 80}}}},
            ]}}],
        })
    );
    assert_eq!(
        body["metadata"]["annotations"],
        json!({"nginx.ingress.kubernetes.io/canary": "true", "nginx.ingress.kubernetes.io/canary-weight": "5"})
    );
    assert_eq!(body["metadata"]["ownerReferences"][0]["uid"], "rollout-uid");
}

#[test]
fn a_weight_is_made_observed_and_not_made_twice() {
    let settings = json!({
        "stableIngresses": ["a", "b"],
        "additionalIngressAnnotations": {"canary-by-header": "X-Canary"},
        "canaryIngressAnnotations": {"owner": "team"},
    });
    let rollout = rollout(settings);
    let mut ingresses = vec![ingress("a", "web-stable"), ingress("b", "web-stable")];
    let wanted = Split::new(25, 100);
    let created = with(&rollout, &ingresses, |context| NginxRouter.edit(context, Wanted::only(&wanted))).unwrap();
    assert_eq!(created.len(), 2);
    ingresses.extend(created.iter().map(|action| after(action, None)));
    with(&rollout, &ingresses, |context| {
        assert!(NginxRouter.observe(context, 100).unwrap().makes(&wanted));
        assert_eq!(NginxRouter.edit(context, Wanted::only(&wanted)), Ok(Vec::new()));
    });
    let annotations = &ingresses[2]["metadata"]["annotations"];
    assert_eq!(annotations["nginx.ingress.kubernetes.io/canary-by-header"], "X-Canary");
    assert_eq!(annotations["owner"], "team");

    // One of the two follows, the other not yet: the split is neither the old nor the new one.
    let next = Split::new(50, 100);
    let patches = with(&rollout, &ingresses, |context| NginxRouter.edit(context, Wanted::only(&next))).unwrap();
    ingresses[2] = after(&patches[0], Some(&ingresses[2]));
    let observed = with(&rollout, &ingresses, |context| NginxRouter.observe(context, 100)).unwrap();
    assert!(!observed.makes(&next) && !observed.makes(&wanted));
    assert_eq!((observed.split.canary, observed.split.stable), (50, 75));
}

#[test]
fn an_ingress_that_is_not_named_is_found_when_there_is_but_one() {
    let rollout = rollout(json!({}));
    let mine = ingress("front", "web-stable");
    let foreign = ingress("foreign", "something-else");
    let wanted = Split::new(10, 100);
    let found =
        with(&rollout, &[mine.clone(), foreign.clone()], |context| NginxRouter.edit(context, Wanted::only(&wanted)))
            .unwrap();
    assert_eq!(found[0].object().name, "web-front-canary");

    let companion = after(&found[0], None);
    let all = [mine.clone(), foreign.clone(), companion];
    with(&rollout, &all, |context| assert!(NginxRouter.observe(context, 100).unwrap().makes(&wanted)));

    let two = [mine, ingress("second", "web-stable")];
    let error = with(&rollout, &two, |context| NginxRouter.edit(context, Wanted::only(&wanted))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "spec.strategy.canary.trafficRouting.nginx.stableIngress: is not set, and several Ingresses have rules for the \
         stable Service \"web-stable\": front, second; name one"
    );
    let error = with(&rollout, &[foreign], |context| NginxRouter.edit(context, Wanted::only(&wanted))).unwrap_err();
    assert!(error.to_string().contains("no Ingress of the namespace has a rule"), "{error}");
}

#[test]
fn an_abort_reaches_the_companion_though_its_ingress_is_gone() {
    let rollout = rollout(json!({"stableIngress": "web"}));
    let stable = ingress("web", "web-stable");
    let created =
        with(&rollout, &[stable], |context| NginxRouter.edit(context, Wanted::only(&Split::new(40, 100)))).unwrap();
    let companion = after(&created[0], None);
    let alone = [companion.clone()];
    let patches =
        with(&rollout, &alone, |context| NginxRouter.edit(context, Wanted::only(&Split::new(0, 100)))).unwrap();
    let aborted = after(&patches[0], Some(&companion));
    assert_eq!(aborted["metadata"]["annotations"]["nginx.ingress.kubernetes.io/canary-weight"], "0");
    let elsewhere = [companion.clone(), ingress("web", "elsewhere")];
    let patches =
        with(&rollout, &elsewhere, |context| NginxRouter.edit(context, Wanted::only(&Split::new(0, 100)))).unwrap();
    assert_eq!(after(&patches[0], Some(&companion)), aborted, "also when it leads elsewhere");
    let raise = with(&rollout, &alone, |context| NginxRouter.edit(context, Wanted::only(&Split::new(50, 100))));
    assert_eq!(raise, Err(RouterError::Missing(ObjectRef::new(INGRESS, "shop", "web"))));
}

#[test]
fn what_cannot_be_done_is_refused_with_the_reason() {
    let rollout = rollout(json!({"stableIngress": "web"}));
    let wanted = Split::new(5, 100);
    let error = |ingresses: &[Value]| {
        with(&rollout, ingresses, |context| NginxRouter.edit(context, Wanted::only(&wanted))).unwrap_err().to_string()
    };
    assert_eq!(error(&[]), "Ingress shop/web does not exist");
    assert_eq!(
        error(&[ingress("web", "elsewhere")]),
        "Ingress shop/web: spec.rules has no path to Service \"web-stable\", the stable Service of the Rollout; add a rule \
         for it"
    );
    let squatter = ingress("web-web-canary", "web-canary");
    assert!(error(&[ingress("web", "web-stable"), squatter]).contains("belongs to somebody else"));
}

#[test]
fn weights_of_another_total_are_scaled() {
    let mut rollout = rollout(json!({"stableIngress": "web", "annotationPrefix": "custom.nginx"}));
    let canary = rollout.spec.strategy.canary.as_mut().unwrap();
    canary.traffic_routing.as_mut().unwrap().max_traffic_weight = Some(1000);
    let stable = ingress("web", "web-stable");
    let wanted = Split::new(15, 1000);
    let created =
        with(&rollout, std::slice::from_ref(&stable), |context| NginxRouter.edit(context, Wanted::only(&wanted)))
            .unwrap();
    let companion = after(&created[0], None);
    assert_eq!(companion["metadata"]["annotations"]["custom.nginx/canary-weight-total"], "1000");
    with(&rollout, &[stable.clone(), companion.clone()], |context| {
        assert!(NginxRouter.observe(context, 1000).unwrap().makes(&wanted));
        assert_eq!(NginxRouter.observe(context, 100).unwrap().split.canary, 2);
    });

    // Hundredths again: thousandths that stayed would make every weight a tenth of what is asked for.
    rollout.spec.strategy.canary.as_mut().unwrap().traffic_routing.as_mut().unwrap().max_traffic_weight = None;
    let wanted = Split::new(15, 100);
    let objects = [stable, companion];
    let edits = with(&rollout, &objects, |context| NginxRouter.edit(context, Wanted::only(&wanted))).unwrap();
    let [stable, companion] = objects;
    let companion = after(&edits[0], Some(&companion));
    with(&rollout, &[stable, companion], |context| {
        assert!(NginxRouter.observe(context, 100).unwrap().makes(&wanted));
    });
}
