//! What clients and models see of the server as a whole.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, PostParams};
use serde_json::json;

use super::*;

fn server() -> ApiServer {
    ApiServer::new(Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap()), 1)
}

#[tokio::test(start_paused = true)]
async fn a_kube_client_works_on_it() {
    let client = server().client("default");
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let map = serde_json::from_value(json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).unwrap();
    let made = maps.create(&PostParams::default(), &map).await.unwrap();
    assert_eq!(made.metadata.creation_timestamp.unwrap().0.to_string(), "2026-01-01T00:00:00Z");
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 1);
    let kube::Error::Api(refusal) = maps.create(&PostParams::default(), &map).await.unwrap_err() else {
        panic!("not the server's refusal");
    };
    assert_eq!(
        (refusal.code, &*refusal.reason, &*refusal.message),
        (409, "AlreadyExists", "configmaps \"a\" already exists")
    );
}
