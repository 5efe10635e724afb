//! The proxy is invisible without rules, and with one rule wrong in exactly that way.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use karat_testbed::proxy::Rule;
use karat_testbed::shared;
use kube::api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client};
use serde_json::json;

fn map(name: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.into());
    map.metadata.labels = Some([("test".to_owned(), name.to_owned())].into());
    map
}

fn maps(client: Client) -> Api<ConfigMap> {
    Api::namespaced(client, "default")
}

#[tokio::test]
async fn without_rules_it_is_invisible_and_watches_stream() {
    let lab = shared().await.unwrap();
    for plain in [false, true] {
        let name = format!("proxy-through-{plain}");
        let mut builder = lab.proxy();
        if plain {
            builder = builder.plain_http();
        }
        let proxy = builder.start().await.unwrap();
        let api = maps(proxy.client().await.unwrap());
        let watch = api
            .watch(
                &WatchParams::default()
                    .disable_bookmarks()
                    .labels(&format!("test={name}")),
                "0",
            )
            .await
            .unwrap();
        let mut watch = watch.boxed();
        api.create(&PostParams::default(), &map(&name))
            .await
            .unwrap();
        // The event comes while the watch stays open, so the body is not collected first.
        let event = tokio::time::timeout(Duration::from_secs(20), watch.try_next())
            .await
            .unwrap()
            .unwrap();
        assert!(
            matches!(event, Some(WatchEvent::Added(m)) if m.metadata.name.as_deref() == Some(&name))
        );
        assert!(
            maps(lab.client().await.unwrap())
                .get_opt(&name)
                .await
                .unwrap()
                .is_some()
        );
        let missing = api.get("proxy-nothing").await.unwrap_err();
        assert!(matches!(missing, kube::Error::Api(a) if a.code == 404 && a.reason == "NotFound"));
        assert!(proxy.seen().iter().all(|s| s.rule.is_none()));
    }
}

#[tokio::test]
async fn a_swallowed_delete_is_answered_and_never_happens() {
    let lab = shared().await.unwrap();
    let proxy = lab
        .proxy()
        .rule(Rule::on("DELETE", "/configmaps/").swallow())
        .start()
        .await
        .unwrap();
    let broken = maps(proxy.client().await.unwrap());
    broken
        .create(&PostParams::default(), &map("proxy-swallow"))
        .await
        .unwrap();
    let answer = broken
        .delete("proxy-swallow", &DeleteParams::default())
        .await
        .unwrap();
    assert!(answer.right().unwrap().is_success());
    assert!(
        maps(lab.client().await.unwrap())
            .get_opt("proxy-swallow")
            .await
            .unwrap()
            .is_some()
    );
    assert_eq!(proxy.seen().last().unwrap().rule, Some(0));
}

#[tokio::test]
async fn a_swallowed_create_gives_the_object_back_and_stores_nothing() {
    let lab = shared().await.unwrap();
    let proxy = lab
        .proxy()
        .rule(Rule::on("POST", "/configmaps$").swallow())
        .start()
        .await
        .unwrap();
    let made = maps(proxy.client().await.unwrap())
        .create(&PostParams::default(), &map("proxy-ghost"))
        .await
        .unwrap();
    assert_eq!(made.metadata.name.as_deref(), Some("proxy-ghost"));
    assert!(
        maps(lab.client().await.unwrap())
            .get_opt("proxy-ghost")
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn answers_wear_out_and_the_rest_goes_through() {
    let lab = shared().await.unwrap();
    let rule = Rule::on("GET", "/configmaps$")
        .fail(503, "ServiceUnavailable", "as told")
        .times(2);
    let proxy = lab.proxy().rule(rule).start().await.unwrap();
    let api = maps(proxy.client().await.unwrap());
    for _ in 0..2 {
        let error = api.list(&ListParams::default()).await.unwrap_err();
        assert!(matches!(error, kube::Error::Api(a) if a.code == 503 && a.message == "as told"));
    }
    api.list(&ListParams::default()).await.unwrap();
}

#[tokio::test]
async fn objects_are_rewritten_in_get_list_and_watch() {
    let lab = shared().await.unwrap();
    let direct = maps(lab.client().await.unwrap());
    for name in ["proxy-edit", "proxy-hide"] {
        direct
            .create(&PostParams::default(), &map(name))
            .await
            .unwrap();
    }
    let rule = Rule::on("GET", "/configmaps").rewrite_objects(|o| {
        o["data"] = json!({ "edited": "yes" });
        o["metadata"]["name"] != "proxy-hide"
    });
    let proxy = lab.proxy().rule(rule).start().await.unwrap();
    let api = maps(proxy.client().await.unwrap());
    let edited = |m: &ConfigMap| m.data.as_ref().is_some_and(|d| d["edited"] == "yes");
    assert!(edited(&api.get("proxy-edit").await.unwrap()));
    assert!(api.get_opt("proxy-hide").await.unwrap().is_none());
    let params = ListParams::default().labels("test in (proxy-edit,proxy-hide)");
    let list = api.list(&params).await.unwrap();
    assert_eq!(list.items.iter().filter(|m| edited(m)).count(), 1);
    let watch = api
        .watch(
            &WatchParams::default()
                .disable_bookmarks()
                .labels("test in (proxy-edit,proxy-hide)")
                .timeout(1),
            "0",
        )
        .await
        .unwrap();
    let events: Vec<_> = watch.try_collect().await.unwrap();
    assert!(
        matches!(&events[..], [WatchEvent::Added(m)] if edited(m)),
        "{events:?}"
    );
}

#[tokio::test]
async fn connections_are_dropped_before_and_in_the_middle_of_an_answer() {
    let lab = shared().await.unwrap();
    let proxy = lab
        .proxy()
        .rule(Rule::on("GET", "/configmaps$").disconnect().times(1))
        .rule(Rule::on("GET", "/configmaps$").cut_after(20).times(1))
        .start()
        .await
        .unwrap();
    let api = maps(proxy.client().await.unwrap());
    for _ in 0..2 {
        let error = api.list(&ListParams::default()).await.unwrap_err();
        assert!(!matches!(error, kube::Error::Api(_)), "{error}");
    }
    api.list(&ListParams::default()).await.unwrap();
}

#[tokio::test]
async fn an_answer_can_be_late() {
    let lab = shared().await.unwrap();
    let rule = Rule::on("GET", "^/version$").delay(Duration::from_millis(300));
    let proxy = lab.proxy().rule(rule).start().await.unwrap();
    let client = proxy.client().await.unwrap();
    let began = std::time::Instant::now();
    client.apiserver_version().await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn the_server_can_lie_about_its_version_and_requests_can_be_rewritten() {
    let lab = shared().await.unwrap();
    let proxy = lab
        .proxy()
        .rule(Rule::version("1.33.4"))
        .rule(
            Rule::on("POST", "/configmaps$")
                .rewrite_request(|o| o["data"] = json!({ "added": "on the way" })),
        )
        .start()
        .await
        .unwrap();
    let client = proxy.client().await.unwrap();
    let version = client.apiserver_version().await.unwrap();
    assert_eq!(
        (version.minor.as_str(), version.git_version.as_str()),
        ("33", "v1.33.4")
    );
    maps(client)
        .create(&PostParams::default(), &map("proxy-request"))
        .await
        .unwrap();
    let stored = maps(lab.client().await.unwrap())
        .get("proxy-request")
        .await
        .unwrap();
    assert_eq!(stored.data.unwrap()["added"], "on the way");
}

#[tokio::test]
async fn the_audit_id_of_a_client_survives_the_proxy() {
    let lab = shared().await.unwrap();
    let proxy = lab.proxy().start().await.unwrap();
    let request = http::Request::get("/api")
        .header("Audit-ID", "karat-through-proxy")
        .body(vec![])
        .unwrap();
    proxy
        .client()
        .await
        .unwrap()
        .request_text(request)
        .await
        .unwrap();
    assert!(
        lab.audit_events()
            .unwrap()
            .iter()
            .any(|e| e["auditID"] == "karat-through-proxy")
    );
}
