//! Any history of events ends at what its last objects say: whoever has followed it holds the answers that an index gives which
//! was made from those objects alone.

use super::{
    chance::{self, pick},
    objects::{NODES, TOKENS, object, questions},
    *,
};
use crate::{Kind, Refused};
use std::{
    collections::BTreeSet,
    fmt::{self, Write},
    net::SocketAddr,
    ops::RangeInclusive,
    sync::Mutex,
};

/// What there is to say and to ask, and objects that exist in several states each. Histories name both by their places here.
struct World {
    objects: Vec<Object>,
    /// Of those.
    keys: Vec<Key>,
    questions: Vec<Question>,
    steps: RangeInclusive<usize>,
    /// At the end every question is asked, and not only those that somebody happens to follow.
    asks_all: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Apply(usize),
    /// The object of this key.
    Delete(usize),
    /// What the object of this key says cannot be carried out any more.
    Refuse(usize),
    /// A list of all objects of a kind: what is not among them is gone.
    List(Kind, Vec<usize>),
    /// Somebody follows the answer to a question from here on.
    Ask(usize),
}

struct History {
    settings: Settings,
    steps: Vec<Step>,
}

/// What histories are to come by, for without it they show nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reached {
    Server,
    /// A ServerAuthorization lets somebody in, or an AuthorizationPolicy.
    ServerAuthorization,
    AuthorizationPolicy,
    /// An authentication lets somebody in by a policy while the port is followed, or does not any more.
    AuthenticationCame,
    AuthenticationWent,
    /// One of another namespace.
    FromElsewhere,
    Route,
    RateLimit,
    /// A pod is an endpoint.
    Pod,
    /// It becomes one while the set is followed, or is one no more: by itself, or by a slice.
    PodCame,
    PodWent,
    PodBySlice,
}

impl World {
    fn new() -> Self {
        Self { steps: 2..=9, asks_all: false, ..Self::of(chance::sample(&object(), 1_500), questions()) }
    }

    /// A narrow one, in which histories are dense.
    fn of(objects: Vec<Object>, questions: Vec<Question>) -> Self {
        Self { keys: objects.iter().map(Object::key).collect(), objects, questions, steps: 20..=30, asks_all: true }
    }

    /// What clients follow alone, so that what routes name comes and goes often.
    fn of_clients() -> Self {
        let Self { objects, mut questions, .. } = Self::new();
        let named = |object: &Object| {
            matches!(object.kind(), Kind::Service | Kind::EgressNetwork)
                || crate::policy::route::checked(object).is_some()
        };
        let objects: Vec<Object> = objects.into_iter().filter(named).take(150).collect();
        questions.retain(|question| matches!(question, Question::Outbound { .. }));
        Self { steps: 2..=9, asks_all: false, ..Self::of(objects, questions) }
    }

    /// Who may use the port of a workload, and what grants it, in this namespace and by authentications of another.
    fn of_ports() -> Self {
        let around = chance::sample(&object(), 1_000);
        let written = chance::sample(&authorization::written(), 2_000);
        let of = |n: usize, wanted: &dyn Fn(Kind, &Value) -> bool| -> Vec<Object> {
            let found = written.iter().filter(|(kind, of)| wanted(*kind, of)).take(n);
            found.map(|(kind, of)| crate::policy::read(*kind, of.clone()).unwrap()).collect()
        };
        let own = |of: &Value| of["metadata"]["namespace"] == "ns";
        // What fits together, so that one of them often decides.
        let plain = ["a", "b"].map(|name| pod(name, "10.1.0.1", json!({})));
        let servers = ["a", "b"].map(|name| policies::server(name, json!(8080), json!({})));
        let kinds = ["MeshTLSAuthentication", "NetworkAuthentication"];
        let granting = ["a", "b"].into_iter().flat_map(|name| {
            kinds.into_iter().flat_map(move |kind| {
                ["ns", "other"].map(|namespace| {
                    let of = json!({"group": "policy.linkerd.io", "kind": kind, "namespace": namespace, "name": "a"});
                    policies::policy_of(name, json!({"kind": "Namespace", "name": "ns"}), json!([of]))
                })
            })
        });
        let granting: Vec<Object> = granting.collect();
        let authentications = [Kind::MeshTlsAuthentication, Kind::NetworkAuthentication];
        let objects = [
            times(4, &plain),
            some(&around, 6, |o| is_of("ns", o) && o.kind() == Kind::Pod),
            some(&around, 2, |o| is_of("ns", o) && o.kind() == Kind::ExternalWorkload),
            some(&around, 2, |o| o.kind() == Kind::Namespace),
            times(4, &servers),
            of(12, &|kind, of| kind == Kind::Server && own(of)),
            vec![policies::broken("a")],
            of(8, &|kind, of| kind == Kind::ServerAuthorization && own(of)),
            times(2, &granting),
            of(12, &|kind, of| kind == Kind::AuthorizationPolicy && own(of)),
            of(32, &|kind, of| authentications.contains(&kind) && of["metadata"]["name"] == "a"),
            of(8, &|kind, _| authentications.contains(&kind)),
            of(6, &|kind, of| [Kind::MeshHttpRoute, Kind::HttpRoute, Kind::GrpcRoute].contains(&kind) && own(of)),
            of(6, &|kind, of| kind == Kind::HttpLocalRateLimitPolicy && own(of)),
        ];
        let mut questions = questions();
        questions.retain(|question| match question {
            Question::Inbound { namespace, name, of, port: 8080 } => {
                namespace == "ns" && (*of == WorkloadKind::Pod || name == "a")
            }
            _ => false,
        });
        Self::of(objects.concat(), questions)
    }

    /// What is behind one Service: slices of it, and the workloads that they name, which come, go and move.
    fn of_endpoints() -> Self {
        let all = chance::sample(&object(), 1_500);
        let of_kind = |n: usize, kind: Kind| some(&all, n, |o| o.kind() == kind && is_of("ns", o));
        // What fits together, so that one of them often decides.
        let at = [("a", "10.1.0.1"), ("b", "10.1.0.2"), ("a", "10.1.0.2"), ("b", "10.1.0.1")];
        let pods = at.map(|(name, ip)| pod(name, ip, json!({})));
        let sets = [&at[..1], &at[1..2], &at[..2], &at[2..]];
        let slices = ["s-0", "s-1"].map(|name| sets.map(|set| slices::slice(name, set, json!({})))).concat();
        let objects = [
            vec![service("web", json!({})); 8],
            of_kind(8, Kind::Service),
            times(4, &slices),
            of_kind(20, Kind::EndpointSlice),
            times(4, &pods),
            of_kind(20, Kind::Pod),
            of_kind(6, Kind::ExternalWorkload),
            of_kind(6, Kind::Server),
            some(&all, 2, |o| o.kind() == Kind::Namespace),
        ];
        let mut questions = questions();
        let is_asked = |target: &Target| match target {
            Target::Name(name) => name.name.as_str().contains("web.ns.svc.") && name.port != 99,
            Target::Addr(addr) => ["10.96.0.1:80", "10.1.0.1:8080"].contains(&addr.to_string().as_str()),
        };
        questions.retain(|question| match question {
            Question::Destination(name) => is_asked(&Target::Name(name.clone())),
            Question::Profile { from, target } => from == "ns" && is_asked(target),
            _ => false,
        });
        Self::of(objects.concat(), questions)
    }

    fn history(&self, seed: u64) -> History {
        let mut rng = fastrand::Rng::with_seed(seed);
        let platform = if rng.u8(..4) == 0 { Platform::Manifests } else { Platform::Kubernetes };
        let mut settings = Settings { platform, ipv6: rng.bool(), zone_weights: rng.bool(), ..Settings::default() };
        // Of a mesh whose pods most of these are not.
        if rng.u8(..8) == 0 {
            settings.control_namespace = "mesh".into();
            settings.trust_domain = "elsewhere.example".into();
        }
        let ask = |rng: &mut fastrand::Rng| Step::Ask(rng.usize(..self.questions.len()));
        let mut steps: Vec<Step> = (0..rng.usize(1..=3)).map(|_| ask(&mut rng)).collect();
        let length = rng.usize(self.steps.clone());
        steps.extend((0..length).map(|_| match rng.u8(..20) {
            0..10 => Step::Apply(rng.usize(..self.objects.len())),
            10..12 => Step::Delete(rng.usize(..self.keys.len())),
            12 => Step::Refuse(rng.usize(..self.keys.len())),
            13 => {
                let kind = pick(&mut rng, &self.keys).kind;
                let listed = (0..rng.usize(..4)).map(|_| rng.usize(..self.objects.len()));
                Step::List(kind, listed.filter(|i| self.keys[*i].kind == kind).collect())
            }
            _ => ask(&mut rng),
        }));
        if self.asks_all {
            steps.extend((0..self.questions.len()).map(Step::Ask));
        }
        History { settings, steps }
    }

    /// What a history comes by, or what goes wrong in its course.
    fn follow(&self, settings: &Settings, steps: &[Step]) -> Result<BTreeSet<Reached>, String> {
        let mut reached = BTreeSet::new();
        let mut index = Index::new(settings.clone());
        let mut there: BTreeMap<&Key, &Object> = BTreeMap::new();
        let mut refused: BTreeSet<&Key> = BTreeSet::new();
        let refusal = |key: &Key| {
            Event::Refused(Box::new(Refused { key: key.clone(), object: Value::Null, reason: String::new() }))
        };
        // What was asked, what it depends on, and the answer that whoever asked holds.
        let mut held: BTreeMap<usize, (Vec<Subject>, Result<Answer, Refusal>)> = BTreeMap::new();
        for step in steps {
            let mut changed = vec![];
            let mut put = |index: &mut Index, i: usize| {
                there.insert(&self.keys[i], &self.objects[i]);
                refused.remove(&self.keys[i]);
                changed.extend(index.store.insert(&self.objects[i]));
            };
            match step {
                Step::Ask(i) => {
                    let question = &self.questions[*i];
                    held.entry(*i).or_insert_with(|| (index.subjects(question), index.reply(question)));
                    continue;
                }
                Step::Apply(i) => put(&mut index, *i),
                Step::Delete(i) => {
                    there.remove(&self.keys[*i]);
                    refused.remove(&self.keys[*i]);
                    changed.extend(index.store.remove(&self.keys[*i]));
                }
                Step::Refuse(i) => {
                    let key = &self.keys[*i];
                    there.remove(key);
                    refused.insert(key);
                    changed.extend(index.apply(refusal(key)));
                }
                Step::List(kind, listed) => {
                    listed.iter().for_each(|i| put(&mut index, *i));
                    let is_gone = |key: &Key| key.kind == *kind && !listed.iter().any(|i| self.keys[*i] == *key);
                    let gone: Vec<&Key> = there.keys().chain(&refused).copied().filter(|key| is_gone(key)).collect();
                    for key in gone {
                        there.remove(key);
                        refused.remove(key);
                        changed.extend(index.store.remove(key));
                    }
                }
            }
            for (i, (subjects, answer)) in &mut held {
                if subjects.iter().any(|s| changed.contains(s)) {
                    let before = std::mem::replace(answer, index.reply(&self.questions[*i]));
                    reached.extend(self.turns(step, &before, answer));
                }
            }
        }
        let mut rebuilt = Index::new(settings.clone());
        there.values().rev().for_each(|object| drop(rebuilt.store.insert(object)));
        refused.into_iter().for_each(|key| drop(rebuilt.apply(refusal(key))));
        for (i, (_, held)) in &held {
            let question = &self.questions[*i];
            let right = rebuilt.reply(question);
            if *held != right {
                let now = index.reply(question);
                let fault = if now == right { "nobody was told" } else { "the index does not say so" };
                return Err(format!("{question:?}\n  was answered {held:#?}\n  and {fault}: {right:#?}"));
            }
            reached.extend(ends(held));
        }
        let asides = |index: &Index| (NODES.map(|node| index.place(node)), TOKENS.map(|t| index.token(t).cloned()));
        if asides(&index) != asides(&rebuilt) {
            return Err(format!("{:?} {:?}", asides(&index), asides(&rebuilt)));
        }
        Ok(reached)
    }

    /// What comes and goes by a step in an answer that somebody follows.
    fn turns(
        &self,
        step: &Step,
        before: &Result<Answer, Refusal>,
        after: &Result<Answer, Refusal>,
    ) -> impl Iterator<Item = Reached> {
        let key = match step {
            Step::Apply(i) | Step::Delete(i) | Step::Refuse(i) => Some(&self.keys[*i]),
            Step::List(..) | Step::Ask(_) => None,
        };
        let is_of = |kinds: &[Kind]| key.is_some_and(|key| kinds.contains(&key.kind));
        let (came, went) = match (before, after) {
            (Ok(Answer::Inbound(before)), Ok(Answer::Inbound(after))) => {
                let of = |policy: &ServerPolicy| granted(policy, "authorizationpolicy");
                (of(after) > of(before), of(after) < of(before))
            }
            (Ok(Answer::Destination(before)), Ok(Answer::Destination(after))) => {
                (!pods(after).is_subset(&pods(before)), !pods(before).is_subset(&pods(after)))
            }
            _ => (false, false),
        };
        let by_authentication = is_of(&[Kind::MeshTlsAuthentication, Kind::NetworkAuthentication]);
        let elsewhere = key.is_some_and(|key| key.namespace == "other");
        [
            (by_authentication && came, Reached::AuthenticationCame),
            (by_authentication && went, Reached::AuthenticationWent),
            (by_authentication && (came || went) && elsewhere, Reached::FromElsewhere),
            (is_of(&[Kind::Pod]) && came, Reached::PodCame),
            (is_of(&[Kind::Pod]) && went, Reached::PodWent),
            (is_of(&[Kind::EndpointSlice]) && (came || went), Reached::PodBySlice),
        ]
        .into_iter()
        .filter_map(|(is_so, reached)| is_so.then_some(reached))
    }

    fn told(&self, steps: &[Step]) -> impl fmt::Display {
        let mut text = String::new();
        let shown = |i: &usize| serde_json::to_string(&self.objects[*i]).unwrap();
        for step in steps {
            let line = match step {
                Step::Apply(i) => format!("apply {}", shown(i)),
                Step::Delete(i) => format!("delete {}", self.keys[*i]),
                Step::Refuse(i) => format!("refuse {}", self.keys[*i]),
                Step::List(kind, listed) => {
                    format!("list {} {:?}", kind.as_str(), listed.iter().map(shown).collect::<Vec<_>>())
                }
                Step::Ask(i) => format!("ask {:?}", self.questions[*i]),
            };
            writeln!(text, "  {line}").unwrap();
        }
        text
    }
}

/// How many of the policy's reasons to let somebody in are of such a kind.
fn granted(policy: &ServerPolicy, kind: &str) -> usize {
    policy.all_authorizations().filter(|authorization| authorization.meta.kind() == kind).count()
}

/// Where they are.
fn pods(endpoints: &Endpoints) -> BTreeSet<SocketAddr> {
    endpoints.all.iter().filter(|(_, located)| located.pod.is_some()).map(|(addr, _)| *addr).collect()
}

/// What there is at the end in an answer that somebody holds.
fn ends(answer: &Result<Answer, Refusal>) -> Vec<Reached> {
    let found = match answer {
        Ok(Answer::Inbound(policy)) => {
            let of_server = policy.meta.kind() == "server";
            let has_route = match &policy.protocol {
                ServerProtocol::Detect { routes, .. }
                | ServerProtocol::Http1 { routes, .. }
                | ServerProtocol::Http2 { routes, .. } => routes.iter().any(|r| r.meta.kind() == "HTTPRoute"),
                ServerProtocol::Grpc { routes } => routes.iter().any(|r| r.meta.kind() == "GRPCRoute"),
                ServerProtocol::Opaque | ServerProtocol::Tls => false,
            };
            vec![
                (of_server, Reached::Server),
                (granted(policy, "serverauthorization") > 0, Reached::ServerAuthorization),
                (granted(policy, "authorizationpolicy") > 0, Reached::AuthorizationPolicy),
                (has_route, Reached::Route),
                (policy.protocol.rate_limit().is_some(), Reached::RateLimit),
            ]
        }
        Ok(Answer::Destination(endpoints)) if endpoints.platform == Platform::Kubernetes => {
            vec![(!pods(endpoints).is_empty(), Reached::Pod)]
        }
        _ => vec![],
    };
    found.into_iter().filter_map(|(is_so, reached)| is_so.then_some(reached)).collect()
}

/// The first `n` of those.
fn some(objects: &[Object], n: usize, wanted: impl Fn(&Object) -> bool) -> Vec<Object> {
    let found: Vec<Object> = objects.iter().filter(|object| wanted(object)).take(n).cloned().collect();
    assert_eq!(found.len(), n);
    found
}

/// Each so many times, for what comes the more often.
fn times(n: usize, objects: &[Object]) -> Vec<Object> {
    vec![objects; n].concat()
}

fn is_of(namespace: &str, object: &Object) -> bool {
    object.key().namespace == namespace
}

/// Only the objects count, not how they came to be; and no change goes unannounced.
#[test]
fn answers_depend_on_the_objects_alone() {
    try_all(&World::new(), 3, &[]);
}

#[test]
fn what_clients_follow_depends_on_the_objects_alone() {
    try_all(&World::of_clients(), 3, &[]);
}

#[test]
fn who_may_use_a_port_depends_on_the_objects_alone() {
    let often = [
        (Reached::Server, 150),
        (Reached::ServerAuthorization, 40),
        (Reached::AuthorizationPolicy, 50),
        (Reached::AuthenticationCame, 15),
        (Reached::AuthenticationWent, 3),
        (Reached::FromElsewhere, 9),
        (Reached::Route, 20),
        (Reached::RateLimit, 20),
    ];
    try_all(&World::of_ports(), 2, &often);
}

#[test]
fn what_is_behind_a_service_depends_on_the_objects_alone() {
    let often = [(Reached::Pod, 40), (Reached::PodCame, 70), (Reached::PodWent, 50), (Reached::PodBySlice, 60)];
    try_all(&World::of_endpoints(), 2, &often);
}

/// Tries so many tenths of all histories; so many of a thousand of them, or more, are to come by these.
fn try_all(world: &World, tenths: u64, often: &[(Reached, u64)]) {
    let cases = chance::cases() * tenths / 10;
    let counts: Mutex<BTreeMap<Reached, u64>> = Mutex::default();
    chance::try_some(cases, |seed| {
        let History { settings, steps } = world.history(seed);
        if let Ok(reached) = world.follow(&settings, &steps) {
            let mut counts = counts.lock().unwrap();
            reached.into_iter().for_each(|of| *counts.entry(of).or_default() += 1);
            return Ok(());
        }
        let (steps, why) = chance::shortest(&steps, |steps| world.follow(&settings, steps).err());
        Err(format!("{settings:?}\n{}{why}", world.told(&steps)))
    });
    let counts = counts.into_inner().unwrap();
    for (of, share) in often {
        let count = counts.get(of).copied().unwrap_or_default();
        assert!(count * 1_000 >= cases * share, "{of:?}: {count} of {cases} histories");
    }
}

/// Nothing is held of objects that are gone.
#[test]
fn what_is_gone_leaves_nothing_behind() {
    let world = World::new();
    let mut index = Index::new(Settings::default());
    let empty = format!("{index:?}");
    world.objects.iter().for_each(|object| drop(index.store.insert(object)));
    assert_ne!(format!("{index:?}"), empty);
    world.keys.iter().for_each(|key| drop(index.store.remove(key)));
    assert_eq!(format!("{index:?}"), empty);
}

/// Equal answers have equal versions, and others have others.
#[test]
fn versions_tell_answers_apart() {
    let world = World::new();
    let mut index = Index::new(Settings::default());
    let mut seen: BTreeMap<u64, Result<Answer, Refusal>> = BTreeMap::new();
    for object in &world.objects {
        index.store.insert(object);
        for question in world.questions.iter().step_by(7) {
            let Versioned { version, answer } = index.answer(question);
            let first = seen.entry(version).or_insert_with(|| answer.clone());
            assert_eq!(*first, answer, "{question:?}");
        }
    }
    assert!(seen.len() > 100, "{} answers", seen.len());
}

/// There is something of every kind that the index holds.
#[test]
fn histories_are_of_everything() {
    let world = World::new();
    let others = [Kind::Namespace, Kind::Service, Kind::Pod, Kind::EndpointSlice, Kind::Node, Kind::Token];
    for kind in others.into_iter().chain(crate::policy::KINDS) {
        let states = world.keys.iter().filter(|key| key.kind == kind).count();
        assert!(states >= 10, "{}: {states}", kind.as_str());
    }
}
