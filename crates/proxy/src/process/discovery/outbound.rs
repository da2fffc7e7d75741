//! What is behind a target, from `GetProfile` and `OutboundPolicies.Watch` together (data plane 4.1).
//!
//! What Linkerd's policies have no words for is asked for where a policy says that there is such a thing, and nowhere else. Such a policy
//! is shown once it is whole; if that takes too long it is shown as it is, and refuses the requests of which something is missing.

use super::{Settings, Sources, TargetKey, Watched, fallback};
use crate::process::{
    control::{Event, Failed, Following, follow},
    retry_budget::Budget,
};
use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};
use weft_model::{ClientPolicy, Extensions, Profile};
use weft_wire::{
    Verdict, destination, extension,
    outbound::{self, TrafficSpec},
};

/// How many calls for a profile may fail in a row, by no fault of the target, until the connection goes on without one: a
/// control plane that is just starting shall not make an opaque port look like another.
const PATIENCE: u32 = 3;
/// When the control plane said that it knows no policy, it is asked again after this long.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// How long a control plane that has just been asked goes on to know nothing of what was known before, until it is believed.
const BELIEVED: Duration = Duration::from_secs(10);
/// How long a policy waits for what is told beside it.
const WHOLE_WITHIN: Duration = Duration::from_secs(3);

/// What is known of a target. Hold it as long as connections use it: what is held is not forgotten.
pub struct OutboundTarget {
    pub key: TargetKey,
    pub policy: Arc<Watched<ClientPolicy>>,
    /// `None` where there is no profile, or none was asked for.
    pub profile: Arc<Watched<Option<Profile>>>,
    published: Arc<Published>,
}

/// What the watching tasks write to.
pub(super) struct Published {
    key: TargetKey,
    settings: Settings,
    answers: Mutex<Answers>,
    policy: Arc<Watched<ClientPolicy>>,
    profile: Arc<Watched<Option<Profile>>>,
    /// The profile's, kept as long as its limits stay.
    budget: ArcSwapOption<Budget>,
    first: watch::Sender<First>,
    whole: watch::Sender<Whole>,
}

/// The newest answers to both questions.
#[derive(Debug, Default)]
struct Answers {
    policy: Answer<ClientPolicy>,
    profile: Answer<Profile>,
    extensions: Answer<Extensions>,
    /// The policy has waited for long enough.
    late: bool,
}

/// Whether the policy wants anything to be told beside it, and that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whole {
    /// It wants nothing.
    Alone,
    Extended,
    Waiting,
    /// What it lacks it refuses.
    Lacking,
}

#[derive(Debug, Default, PartialEq)]
enum Answer<T> {
    /// None has come yet.
    #[default]
    Waiting,
    Known(T),
    /// There is none: the control plane said so, or could not be asked.
    None,
    /// It was sent, but cannot be used.
    Invalid(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum First {
    Waiting,
    Answered,
    /// The question itself is refused.
    Refused(String),
}

impl OutboundTarget {
    pub(super) fn new(key: TargetKey, settings: &Settings) -> Self {
        // Nobody sees this one: the target is handed out after the first answers only.
        let policy = Arc::new(Watched::new(fallback::client_policy(&key, None, settings)));
        let profile = Arc::new(Watched::new(None));
        let asked = match &key {
            TargetKey::Addr(addr) => settings.profile_networks.iter().any(|net| net.contains(addr.ip())),
            TargetKey::Name(name) => settings.profile_suffixes.contains(&name.name),
        };
        let profile_answer = if asked { Answer::Waiting } else { Answer::None };
        let answers = Answers { profile: profile_answer, ..Answers::default() };
        let published = Arc::new(Published {
            key: key.clone(),
            settings: settings.clone(),
            answers: Mutex::new(answers),
            policy: policy.clone(),
            profile: profile.clone(),
            budget: ArcSwapOption::empty(),
            first: watch::Sender::new(First::Waiting),
            whole: watch::Sender::new(Whole::Alone),
        });
        Self { key, policy, profile, published }
    }

    /// What requests that follow the profile may be sent again by, of all workers.
    pub fn budget(&self) -> Option<Arc<Budget>> {
        self.published.budget.load_full()
    }

    pub(super) fn published(&self) -> Arc<Published> {
        self.published.clone()
    }

    /// Waits for the first answers; the error is why there will be none.
    pub(super) async fn answered(&self) -> Result<(), String> {
        let mut first = self.published.first.subscribe();
        match first.wait_for(|first| *first != First::Waiting).await.as_deref() {
            Ok(First::Refused(reason)) => Err(reason.clone()),
            Ok(_) => Ok(()),
            Err(_) => Err("the proxy is ending".into()),
        }
    }
}

/// Asks both questions and keeps the answers up to date.
pub(super) async fn watch(published: Arc<Published>, sources: Sources) {
    let ask_profile = published.answers.lock().profile == Answer::Waiting;
    let profiles = async {
        if ask_profile {
            watch_profile(&published, &sources).await;
        }
    };
    tokio::join!(
        watch_policy(&published, &sources),
        profiles,
        watch_extensions(&published, &sources),
        lose_patience(&published)
    );
}

fn asked(target: &TargetKey) -> outbound::Target {
    match target {
        TargetKey::Addr(addr) => outbound::Target::Addr(*addr),
        TargetKey::Name(name) => outbound::Target::Authority(name.to_string()),
    }
}

async fn watch_policy(published: &Published, sources: &Sources) {
    let client = outbound::Client::new(sources.policy.clone());
    let target = &published.key;
    let asked = asked(target);
    let open = || {
        let (mut client, workload, asked) = (client.clone(), sources.workload.clone(), asked.clone());
        async move { client.watch(&workload, asked).await }
    };
    let mut gone = Gone::default();
    follow(Following { absent: Some(ASK_AGAIN), ..sources.policy_following }, open, |event| match event {
        Event::Message { value, .. } => {
            gone = Gone::default();
            published.policy_answer(Answer::Known(value));
        }
        Event::Invalid(reason) => {
            gone = Gone::default();
            tracing::warn!(%target, reason, "The outbound policy is invalid: requests are refused");
            published.policy_answer(Answer::Invalid(reason));
        }
        Event::Failed(failed) if gone.is_believed(&failed) => {
            tracing::debug!(%target, error = %failed.error, "The control plane has no outbound policy any more");
            published.policy_is_gone();
        }
        Event::Failed(Failed { error, verdict: Verdict::Unknown | Verdict::Unserved, .. }) => {
            tracing::debug!(%target, %error, "The control plane has no outbound policy");
            published.policy_answer(Answer::None);
        }
        Event::Failed(Failed { error, verdict: Verdict::Refused, again, .. }) => {
            if !again {
                tracing::warn!(%target, %error, "The outbound policy is refused");
            }
            published.refused(error.to_string());
        }
        Event::Failed(Failed { error, verdict: Verdict::None, .. }) => {
            tracing::debug!(%target, %error, "The stream of the outbound policy is lost");
        }
    })
    .await;
}

/// Since when the control plane has said, each time, that there is nothing of what was known before.
#[derive(Default)]
struct Gone(Option<Instant>);

impl Gone {
    /// Who told it takes it back: then it is gone at once. Another one may have just been started and not know everything yet, whatever
    /// it says of itself, and is believed when it has gone on for long.
    fn is_believed(&mut self, Failed { verdict, answered, .. }: &Failed) -> bool {
        if *verdict != Verdict::Unknown {
            self.0 = None;
            return false;
        }
        *answered || self.0.get_or_insert_with(Instant::now).elapsed() >= BELIEVED
    }
}

/// Asks as long as the policy wants something to be told beside it.
async fn watch_extensions(published: &Published, sources: &Sources) {
    let client = extension::Client::new(sources.policy.clone());
    let target = &published.key;
    let spec = TrafficSpec { workload: sources.workload.clone(), target: asked(target) };
    let open = || {
        let (mut client, spec) = (client.clone(), spec.clone());
        async move { client.watch(&spec).await }
    };
    let mut whole = published.whole.subscribe();
    while whole.wait_for(|whole| *whole != Whole::Alone).await.is_ok() {
        let following = follow(sources.policy_following, open, |event| match event {
            Event::Message { value, .. } => published.extensions_answer(Answer::Known(value)),
            Event::Invalid(reason) => {
                tracing::warn!(%target, reason, "What belongs to an outbound policy cannot be read: who wants it is refused");
                // It will not come.
                published.extensions_answer(Answer::None);
                published.lose_patience();
            }
            Event::Failed(Failed { error, verdict: Verdict::None, .. }) => {
                tracing::debug!(%target, %error, "The stream of what belongs to an outbound policy is lost");
            }
            Event::Failed(Failed { error, again, .. }) => {
                if !again {
                    tracing::warn!(%target, %error, "What belongs to an outbound policy is not told: its requests are refused");
                }
                published.extensions_answer(Answer::None);
            }
        });
        let over = tokio::select! {
            // It has no end, and what it was told stands in the answers.
            () = following => false,
            // Cancel-safe, as every wait for a value is.
            _ = whole.wait_for(|whole| *whole == Whole::Alone) => true,
        };
        if over {
            published.forget_extensions();
        }
    }
}

async fn lose_patience(published: &Published) {
    let mut whole = published.whole.subscribe();
    while whole.wait_for(|whole| *whole == Whole::Waiting).await.is_ok() {
        let waiting = whole.wait_for(|whole| *whole != Whole::Waiting);
        if tokio::time::timeout(WHOLE_WITHIN, waiting).await.is_err() {
            tracing::warn!(target = %published.key, "What belongs to an outbound policy has not come: its requests are refused");
            published.lose_patience();
        }
    }
}

async fn watch_profile(published: &Published, sources: &Sources) {
    let client = destination::Client::new(sources.destination.clone());
    let target = &published.key;
    let path = target.to_string();
    let open = || {
        let (mut client, path, context) = (client.clone(), path.clone(), sources.destination_context.clone());
        async move { client.get_profile(&path, &context).await }
    };
    let (mut failures, mut gone) = (0, Gone::default());
    follow(sources.destination_following, open, |event| match event {
        Event::Message { value, .. } => {
            (failures, gone) = (0, Gone::default());
            published.profile_answer(Answer::Known(value));
        }
        Event::Failed(failed) if gone.is_believed(&failed) => {
            tracing::debug!(%target, error = %failed.error, "There is no profile any more");
            published.profile_is_gone();
        }
        Event::Invalid(reason) => {
            tracing::warn!(%target, reason, "What cannot be used of a profile is left out");
        }
        // Whatever the failure is, it means that there is no profile, until one comes.
        Event::Failed(Failed { error, verdict, .. }) => {
            tracing::debug!(%target, %error, "There is no profile");
            failures += 1;
            if verdict != Verdict::None || failures >= PATIENCE {
                published.profile_answer(Answer::None);
            }
        }
    })
    .await;
}

impl Answers {
    /// The policy with what was told beside it; `None` while that is waited for.
    fn extended(&self, policy: &ClientPolicy) -> (Whole, Option<ClientPolicy>) {
        let none = Extensions::default();
        let told = if let Answer::Known(told) = &self.extensions { told } else { &none };
        let wanted: Vec<&str> = policy.wants().collect();
        let extended = || Some(policy.clone().extended(told));
        if wanted.is_empty() {
            (Whole::Alone, extended())
        } else if wanted.iter().all(|key| told.0.contains_key(*key)) {
            (Whole::Extended, extended())
        } else if self.late || self.extensions == Answer::None {
            (Whole::Lacking, extended())
        } else {
            (Whole::Waiting, None)
        }
    }
}

impl Published {
    fn policy_answer(&self, answer: Answer<ClientPolicy>) {
        let mut answers = self.answers.lock();
        // A control plane that has just been started may not know yet what an earlier one knew.
        if answer != Answer::None || answers.policy == Answer::Waiting {
            answers.policy = answer;
            answers.late = false;
        }
        self.publish(&mut answers);
    }

    fn policy_is_gone(&self) {
        let mut answers = self.answers.lock();
        (answers.policy, answers.late) = (Answer::None, false);
        self.publish(&mut answers);
    }

    /// What was told stays as long as the policy wants it: it is of the policy's very words.
    fn extensions_answer(&self, answer: Answer<Extensions>) {
        let mut answers = self.answers.lock();
        let old = std::mem::take(&mut answers.extensions);
        answers.extensions = match (answer, old, &answers.policy) {
            (Answer::Known(mut new), Answer::Known(old), Answer::Known(policy)) => {
                let wanted: HashSet<&str> = policy.wants().collect();
                new.0.extend(old.0.into_iter().filter(|(key, _)| wanted.contains(key.as_str())));
                Answer::Known(new)
            }
            (Answer::None, old @ Answer::Known(_), _) => old,
            (new, ..) => new,
        };
        self.publish(&mut answers);
    }

    /// The stream that told them has ended. Not before that: who asked for them once is not told them again.
    fn forget_extensions(&self) {
        self.answers.lock().extensions = Answer::Waiting;
    }

    fn lose_patience(&self) {
        let mut answers = self.answers.lock();
        answers.late = true;
        self.publish(&mut answers);
    }

    fn profile_answer(&self, answer: Answer<Profile>) {
        let mut answers = self.answers.lock();
        if answer != Answer::None || answers.profile == Answer::Waiting {
            answers.profile = answer;
        }
        self.publish(&mut answers);
    }

    fn profile_is_gone(&self) {
        let mut answers = self.answers.lock();
        answers.profile = Answer::None;
        self.publish(&mut answers);
    }

    fn refused(&self, reason: String) {
        self.first.send_if_modified(|first| {
            let waiting = *first == First::Waiting;
            if waiting {
                *first = First::Refused(reason);
            }
            waiting
        });
    }

    /// Shows the answers, once there is one to each question.
    fn publish(&self, answers: &mut Answers) {
        let known = if let Answer::Known(policy) = &answers.policy { Some(policy) } else { None };
        let (whole, policy) = match known {
            None => (Whole::Alone, None),
            Some(policy) => answers.extended(policy),
        };
        self.whole.send_if_modified(|now| std::mem::replace(now, whole) != whole);
        let profile = match &answers.profile {
            Answer::Waiting => return,
            Answer::Known(profile) => Some(profile),
            Answer::None | Answer::Invalid(_) => None,
        };
        let policy = match (policy, &answers.policy) {
            (Some(policy), _) => policy,
            (None, Answer::Waiting | Answer::Known(_)) => return,
            (None, Answer::None) => fallback::client_policy(&self.key, profile, &self.settings),
            (None, Answer::Invalid(reason)) => fallback::invalid_client_policy(reason, &self.settings),
        };
        let limits = profile.and_then(|profile| profile.retry_budget);
        if self.budget.load().as_ref().map(|budget| budget.limits()) != limits {
            let clock = &self.settings.inbound.clock;
            self.budget.store(limits.map(|limits| Arc::new(Budget::new(limits, clock))));
        }
        self.profile.set_if_changed(profile.cloned());
        if self.policy.set_if_changed(policy) {
            tracing::debug!(target = %self.key, "Outbound policy changed");
        }
        self.first.send_if_modified(|first| std::mem::replace(first, First::Answered) != First::Answered);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::InboundSettings, *};
    use crate::config::{DnsSuffixes, PortSet};
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};
    use weft_model::{
        Endpoint, Meta, NameAddr,
        policy::{
            inbound::DefaultPolicy,
            outbound::{BackendKind, ClientProtocol, Distribution},
            route::{Extension, Filter, PathReplacement, Rewrite},
        },
    };

    const ADDR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 80);

    fn settings(networks: &[&str]) -> Settings {
        Settings {
            timeout: Duration::from_secs(10),
            profile_networks: networks.iter().map(|n| n.parse().unwrap()).collect(),
            profile_suffixes: DnsSuffixes(vec!["svc.cluster.local".to_owned()]),
            profile_patience: Duration::ZERO,
            detect_timeout: Duration::from_secs(7),
            outbound_idle: Duration::from_secs(5),
            inbound: InboundSettings {
                idle: Duration::from_secs(90),
                default_policy: DefaultPolicy::Deny,
                authorizations: vec![],
                opaque_ports: PortSet::default(),
                detect_timeout: Duration::from_secs(10),
                eager: Default::default(),
                admin_port: 4191,
                clock: crate::process::rate_limit::clock(),
            },
        }
    }

    fn target(networks: &[&str]) -> OutboundTarget {
        OutboundTarget::new(ADDR.into(), &settings(networks))
    }

    fn first(target: &OutboundTarget) -> First {
        target.published.first.borrow().clone()
    }

    fn forwards_to(target: &OutboundTarget) -> (String, Endpoint) {
        let policy = target.policy.snapshot();
        let ClientProtocol::Detect { timeout, opaque: Some(route), .. } = &policy.value.protocol else { panic!() };
        assert_eq!(*timeout, Duration::from_secs(7));
        let Distribution::FirstAvailable(backends) = &route.backends else { panic!() };
        let BackendKind::Forward(endpoint) = &backends[0].backend.kind else { panic!() };
        (policy.value.meta.name().to_owned(), endpoint.clone())
    }

    #[test]
    fn both_answers_are_awaited() {
        let t = target(&["10.0.0.0/8"]);
        t.published.policy_answer(Answer::None);
        assert_eq!(first(&t), First::Waiting);
        t.published.profile_answer(Answer::None);
        assert_eq!(first(&t), First::Answered);
        assert_eq!(forwards_to(&t), ("fallback".to_owned(), Endpoint::plain(ADDR)));
    }

    /// What a control plane sends, and what it tells beside it.
    fn rewriting(to: &str) -> (ClientPolicy, Extensions) {
        let path = Some(PathReplacement::Full(to.to_owned()));
        let mut policy = fallback::client_policy(&ADDR.into(), None, &settings(&[]));
        let ClientProtocol::Detect { http1, .. } = &mut policy.protocol else { panic!() };
        http1.routes[0].rules[0].filters = vec![Filter::Rewrite(Rewrite { host: None, path })];
        let told = extension::of(&policy);
        let key = told.0.keys().next().unwrap().clone();
        let ClientProtocol::Detect { http1, .. } = &mut policy.protocol else { panic!() };
        http1.routes[0].rules[0].filters = vec![Filter::Extension(Extension { key, wants: "URLRewrite".to_owned() })];
        (policy, told)
    }

    fn filters(target: &OutboundTarget) -> Vec<Filter> {
        let policy = target.policy.snapshot();
        let ClientProtocol::Detect { http1, .. } = &policy.value.protocol else { panic!() };
        http1.routes[0].rules[0].filters.clone()
    }

    #[test]
    fn a_policy_is_shown_once_it_is_whole() {
        let t = target(&[]);
        let ((a, a_told), (b, b_told), (c, c_told)) = (rewriting("/a"), rewriting("/b"), rewriting("/c"));
        let whole = |t: &OutboundTarget| *t.published.whole.borrow();
        t.published.policy_answer(Answer::Known(a.clone()));
        assert_eq!((first(&t), whole(&t)), (First::Waiting, Whole::Waiting));
        t.published.extensions_answer(Answer::Known(b_told.clone()));
        assert_eq!(first(&t), First::Waiting, "that is of another policy");
        t.published.extensions_answer(Answer::Known(a_told.clone()));
        assert_eq!((first(&t), whole(&t)), (First::Answered, Whole::Extended));
        let rewrite = |told: &Extensions| told.0.values().next().unwrap().clone();
        assert_eq!(filters(&t), rewrite(&a_told));
        // Whichever comes first: what is in force stays until the other is there.
        t.published.extensions_answer(Answer::Known(b_told.clone()));
        assert_eq!(filters(&t), rewrite(&a_told));
        t.published.policy_answer(Answer::Known(b));
        assert_eq!(filters(&t), rewrite(&b_told));
        t.published.policy_answer(Answer::Known(c));
        assert_eq!((whole(&t), filters(&t)), (Whole::Waiting, rewrite(&b_told)));
        t.published.lose_patience();
        assert!(whole(&t) == Whole::Lacking && matches!(filters(&t)[..], [Filter::Extension(_)]));
        t.published.extensions_answer(Answer::Known(c_told.clone()));
        assert_eq!(filters(&t), rewrite(&c_told));
        // A stream that is lost takes nothing away.
        t.published.extensions_answer(Answer::None);
        assert_eq!(filters(&t), rewrite(&c_told));
        let plain = || Answer::Known(fallback::client_policy(&ADDR.into(), None, &settings(&[])));
        t.published.policy_answer(plain());
        assert_eq!((whole(&t), filters(&t)), (Whole::Alone, vec![]));
        // It is wanted again before anybody has ended the stream, which will not say it twice.
        t.published.policy_answer(Answer::Known(a.clone()));
        t.published.extensions_answer(Answer::Known(a_told.clone()));
        t.published.policy_answer(plain());
        t.published.policy_answer(Answer::Known(a.clone()));
        assert_eq!((whole(&t), filters(&t)), (Whole::Extended, rewrite(&a_told)));
        t.published.policy_answer(plain());
        t.published.forget_extensions();
        t.published.policy_answer(Answer::Known(a));
        assert_eq!(whole(&t), Whole::Waiting, "what an earlier stream said says nothing");
    }

    #[test]
    fn what_cannot_be_read_of_it_costs_its_own_rules_at_once() {
        let t = target(&[]);
        let ((mut policy, told), (other, _)) = (rewriting("/a"), rewriting("/b"));
        let (ClientProtocol::Detect { http1, .. }, ClientProtocol::Detect { http1: others, .. }) =
            (&mut policy.protocol, &other.protocol)
        else {
            panic!()
        };
        http1.routes.push(others.routes[0].clone());
        t.published.policy_answer(Answer::Known(policy));
        assert_eq!(first(&t), First::Waiting);
        // As it comes: what can be used, then that something cannot.
        t.published.extensions_answer(Answer::Known(told.clone()));
        assert_eq!(first(&t), First::Waiting);
        t.published.extensions_answer(Answer::None);
        t.published.lose_patience();
        assert_eq!(first(&t), First::Answered);
        let shown = t.policy.snapshot();
        let ClientProtocol::Detect { http1, .. } = &shown.value.protocol else { panic!() };
        let filters = |route: usize| &http1.routes[route].rules[0].filters;
        assert_eq!(Some(filters(0)), told.0.values().next());
        assert!(matches!(filters(1)[..], [Filter::Extension(_)]));
    }

    #[test]
    fn who_is_told_nothing_refuses_at_once() {
        let t = target(&[]);
        t.published.policy_answer(Answer::Known(rewriting("/a").0));
        t.published.extensions_answer(Answer::None);
        assert!(first(&t) == First::Answered && matches!(filters(&t)[..], [Filter::Extension(_)]));
    }

    #[test]
    fn no_profile_is_awaited_outside_the_networks() {
        let t = target(&["192.168.0.0/16"]);
        t.published.policy_answer(Answer::None);
        assert_eq!(first(&t), First::Answered);
    }

    #[test]
    fn without_a_policy_the_profiles_endpoint_is_used_and_followed() {
        let t = target(&["10.0.0.0/8"]);
        let endpoint = Endpoint { transport_port: Some(4143), ..Endpoint::plain(ADDR) };
        t.published.policy_answer(Answer::None);
        t.published.profile_answer(Answer::Known(Profile { endpoint: Some(endpoint.clone()), ..Profile::default() }));
        assert_eq!(forwards_to(&t), ("endpoint".to_owned(), endpoint));
        t.published.profile_answer(Answer::Known(Profile { opaque: true, ..Profile::default() }));
        assert_eq!(forwards_to(&t).0, "fallback");
        assert!(t.profile.load().value.as_ref().unwrap().opaque);
    }

    #[test]
    fn the_last_known_answers_stay() {
        let t = target(&["10.0.0.0/8"]);
        let known = ClientPolicy { meta: Meta::default_named("known"), protocol: ClientProtocol::Opaque(None) };
        t.published.policy_answer(Answer::Known(known.clone()));
        t.published.profile_answer(Answer::Known(Profile { opaque: true, ..Profile::default() }));
        let version = t.policy.version();
        t.published.policy_answer(Answer::None);
        t.published.profile_answer(Answer::None);
        t.published.refused("later".into());
        assert_eq!((t.policy.version(), &t.policy.load().value), (version, &known));
        assert!(t.profile.load().value.is_some());
        assert_eq!(first(&t), First::Answered);
        // What is taken back goes, each by itself.
        t.published.policy_is_gone();
        assert_eq!(forwards_to(&t), ("fallback".to_owned(), Endpoint::plain(ADDR)));
        assert!(t.profile.load().value.as_ref().unwrap().opaque);
        t.published.profile_is_gone();
        assert!(t.profile.load().value.is_none());
        t.published.policy_answer(Answer::Known(known.clone()));
        assert_eq!(t.policy.load().value, known);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_believed_of_who_has_just_been_started() {
        let failed = |verdict, answered| Failed {
            error: tonic::Status::not_found("gone").into(),
            verdict,
            again: false,
            answered,
        };
        let mut gone = Gone::default();
        assert!(gone.is_believed(&failed(Verdict::Unknown, true)));
        for other in [Verdict::None, Verdict::Unserved, Verdict::Refused] {
            let mut gone = Gone::default();
            assert!(!gone.is_believed(&failed(other, true)), "{other:?}");
            assert!(!gone.is_believed(&failed(Verdict::Unknown, false)));
            tokio::time::advance(BELIEVED).await;
            // It was away meanwhile: another one may have come.
            assert!(!gone.is_believed(&failed(other, false)));
            assert!(!gone.is_believed(&failed(Verdict::Unknown, false)));
            tokio::time::advance(BELIEVED / 2).await;
            assert!(!gone.is_believed(&failed(Verdict::Unknown, false)));
            tokio::time::advance(BELIEVED / 2).await;
            assert!(gone.is_believed(&failed(Verdict::Unknown, false)), "{other:?}");
        }
    }

    #[test]
    fn a_name_that_nobody_knows_is_refused_and_a_profile_leads_to_its_service() {
        let named = |name: &str| OutboundTarget::new(name.parse::<NameAddr>().unwrap().into(), &settings(&[]));
        let outside = named("example.com:80");
        outside.published.policy_answer(Answer::None);
        assert_eq!(first(&outside), First::Answered, "no profile is asked for outside the suffixes");
        let unknown = |t: &OutboundTarget| {
            let policy = t.policy.snapshot();
            let ClientProtocol::Detect { http1, opaque: None, .. } = &policy.value.protocol else { return false };
            policy.value.meta.name() == "fallback" && http1.routes.is_empty()
        };
        assert!(unknown(&outside));

        let t = named("web.ns.svc.cluster.local:80");
        t.published.policy_answer(Answer::None);
        assert_eq!(first(&t), First::Waiting);
        t.published.profile_answer(Answer::Known(Profile::default()));
        let policy = t.policy.snapshot();
        let ClientProtocol::Detect { opaque: Some(route), .. } = &policy.value.protocol else { panic!() };
        let Distribution::FirstAvailable(backends) = &route.backends else { panic!() };
        let BackendKind::Balance { target, .. } = &backends[0].backend.kind else { panic!() };
        assert_eq!(target.to_string(), "web.ns.svc.cluster.local:80");
    }

    #[tokio::test]
    async fn a_refused_question_fails_the_wait() {
        let t = target(&[]);
        t.published.refused("no such workload".into());
        assert_eq!(t.answered().await, Err("no such workload".to_owned()));
    }

    #[test]
    fn an_invalid_policy_refuses_everything() {
        let t = target(&[]);
        t.published.policy_answer(Answer::Invalid("protocol: is required".into()));
        let policy = t.policy.snapshot();
        let ClientProtocol::Detect { http1, opaque: Some(tcp), .. } = &policy.value.protocol else { panic!() };
        assert_eq!(tcp.backends, Distribution::Empty);
        let refuses = |f: &weft_model::policy::route::Filter| format!("{f:?}").contains("protocol: is required");
        assert!(tcp.filters.iter().all(refuses) && http1.routes[0].rules[0].filters.iter().all(refuses));
        assert_eq!((tcp.filters.len(), http1.routes[0].rules[0].filters.len()), (1, 1));
    }
}
