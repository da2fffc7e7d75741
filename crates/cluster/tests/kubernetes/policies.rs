//! The examples of `docs/authorization.md`: each is taken, and all of them together let in whom the page says.

use std::path::Path;
use weft_cluster::{
    Event, Index, Object,
    index::{Answer, Question, Settings},
    manifest,
};
use weft_model::policy::inbound::ServerProtocol;

#[test]
fn the_examples_of_the_page_are_carried_out() {
    let mut index = Index::new(Settings::default());
    let pod = serde_json::json!({
        "metadata": {"name": "web-1", "namespace": "emojivoto", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "ports": [{"name": "http", "containerPort": 8080}]}]},
    });
    index.apply(Event::Apply(Object::Pod(Box::new(serde_json::from_value(pod).unwrap()))));
    assert!(examples("authorization.md", include_str!("../../../../docs/authorization.md"), &mut index) > 4);
    let question = Question::Inbound { namespace: "emojivoto".into(), pod: "web-1".into(), port: 8080 };
    let Ok(Answer::Inbound(policy)) = index.answer(&question).answer else { panic!() };
    let names: Vec<String> =
        policy.authorizations.iter().map(|a| format!("{}/{}", a.meta.kind(), a.meta.name())).collect();
    let expected = ["serverauthorization/web", "authorizationpolicy/office", "authorizationpolicy/web"];
    let ServerProtocol::Http1 { routes, rate_limit } = &policy.protocol else { panic!("{:?}", policy.protocol) };
    let granted = |i: usize| routes[i].rules[0].does.authorizations[0].meta.name();
    assert_eq!((routes.len(), routes[0].meta.name(), granted(0), granted(1)), (2, "probes", "probes", "votes"));
    assert_eq!(rate_limit.as_ref().and_then(|limit| limit.total), Some(1000));
    assert_eq!((policy.meta.name(), names), ("web", expected.map(str::to_owned).to_vec()));
}

/// Takes the examples of a page into an index as a mesh would, and says how many there are.
pub(crate) fn examples(name: &str, page: &str, index: &mut Index) -> usize {
    let examples = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    let mut count = 0;
    for example in examples {
        let loaded = manifest::load_text(Path::new(name), example);
        assert!(loaded.problems.is_empty() && !loaded.objects.is_empty(), "{example}: {:?}", loaded.problems);
        assert!(loaded.ignored.is_empty(), "{example}: {:?}", loaded.ignored);
        loaded.objects.into_iter().for_each(|located| drop(index.apply(Event::Apply(located.object))));
        count += 1;
    }
    count
}
