//! Which requests a route of a ServiceProfile is for, and what it says of which responses.

use super::{super::lab::ApiServer, *};
use weft_testkit::api_server::FakeApi;

#[tokio::test]
async fn a_condition_is_what_its_text_says() {
    conditions(&FakeApi::start().await.unwrap()).await;
}

/// Part 3.6: what an API server keeps of a condition, whose definition says nothing of what stands within it.
pub(crate) async fn conditions(api: &impl ApiServer) {
    let profile = |version: &str, condition: Value, response: Value| {
        let class = json!({"condition": response, "isFailure": true});
        let route = json!({"name": "r", "condition": condition, "responseClasses": [class]});
        let profile = object("ServiceProfile", WEB, json!({"routes": [route]}));
        with([merged(profile, json!({"apiVersion": format!("linkerd.io/{version}")}))])
    };
    let fails = json!({"status": {"min": 500, "max": 599}});
    let at = || profiled(&format!("{SERVICE_IP}:80"));
    let rows: Vec<Row> = vec![
        (
            "`not` is one condition",
            profile("v1alpha2", json!({"not": {"method": "POST"}}), json!({"not": {"status": {"max": 299}}})),
            at(),
            "r if not POST fails if not 100-299",
        ),
        (
            "also in the version before",
            profile("v1alpha1", json!({"not": {"method": "POST"}}), fails.clone()),
            at(),
            "r if not POST fails if 500-599",
        ),
        (
            "beside others all of them count",
            profile(
                "v1alpha2",
                json!({"method": "GET", "pathRegex": "/a", "not": {"any": [{"pathRegex": "/a/b"}]}}),
                fails,
            ),
            at(),
            "r if all(/a, GET, not any(/a/b)) fails if 500-599",
        ),
    ];
    hold_with(api, settings(), said::conditions, rows).await;
}
