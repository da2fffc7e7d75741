//! The list: what is put into force, what then comes of which request, and which failures of the load the objects ask for.

use super::{Holds, Run, app, holds, objects};

pub(super) struct Stage {
    pub(super) name: &'static str,
    pub(super) steps: Vec<Step>,
    /// What the load may be answered besides 200.
    pub(super) asks_for: &'static [&'static str],
    /// What is looked at while all of it is in force.
    pub(super) then: Option<fn(&Run<'_>)>,
}

/// Objects, and what shows that they are in force.
pub(super) struct Step {
    /// Under which name they are put: a new one, one of an earlier step, or a part of the app's.
    pub(super) put: &'static str,
    pub(super) objects: String,
    /// What is asked, and what comes of it, as [`super::ask::Ask`] has them.
    pub(super) shows: &'static [(&'static str, &'static str)],
    pub(super) holds: Option<Holds>,
}

fn step(put: &'static str, objects: impl Into<String>, shows: &'static [(&'static str, &'static str)]) -> Step {
    Step { put, objects: objects.into(), shows, holds: None }
}

fn stage(name: &'static str, steps: impl Into<Vec<Step>>) -> Stage {
    Stage { name, steps: steps.into(), asks_for: &[], then: None }
}

/// The answer of `web` to the plainest request.
const WEB: &str = "200 web: GET /";

pub(super) fn all() -> Vec<Stage> {
    vec![
        Stage {
            name: "split",
            steps: vec![
                step("split", objects::split(0, 100), &[("GET web/", "200 next: GET /")]),
                Step { put: "split", objects: objects::split(90, 10), shows: &[], holds: Some(holds::both_are_asked) },
            ],
            asks_for: &[],
            then: Some(holds::a_tenth_goes_to_next),
        },
        stage(
            "a backend that is not there",
            [
                step(
                    "split",
                    objects::TO_NOBODY,
                    &[("GET web/gone", "500 BACKEND_INVALID"), ("GET web/", "200 web: GET /")],
                ),
                step("gone", app::gone_service(), &[("GET web/gone", "200 next: GET /gone")]),
            ],
        ),
        stage(
            "headers, query, method and path",
            [step(
                "routes",
                objects::MATCHES,
                &[
                    ("GET web/ x-canary:yes", "200 next: GET / x-canary=yes"),
                    ("GET web/ x-canary:no", "200 web: GET / x-canary=no"),
                    ("GET web/ x-user:bob-7", "200 next: GET / x-user=bob-7"),
                    ("GET web/?beta=1&c=d", "200 next: GET /?beta=1&c=d"),
                    ("GET web/?beta=10", "200 web: GET /?beta=10"),
                    ("PUT web/orders", "200 next: PUT /orders"),
                    ("GET web/orders", "200 web: GET /orders"),
                    ("GET web/search/a", "200 next: GET /search/a"),
                    ("GET web/searches", "200 web: GET /searches"),
                    ("GET web/only", "200 next: GET /only"),
                    ("GET web/only/one", "200 web: GET /only/one"),
                    ("GET web/v12/x", "200 next: GET /v12/x"),
                ],
            )],
        ),
        stage(
            "calls of gRPC",
            [step(
                "calls",
                objects::CALLS,
                &[
                    ("CALL other/shop.v1.Prices/Quote", "200 web: POST /shop.v1.Prices/Quote x-call=quote"),
                    ("CALL other/shop.v1.Prices/List", "200 next: POST /shop.v1.Prices/List"),
                ],
            )],
        ),
        stage(
            "redirects",
            [step(
                "redirects",
                objects::REDIRECTS,
                &[
                    ("GET web/writers/7?n=1", "301 to http://web/authors/7?n=1"),
                    ("GET web/moved", "301 to https://other.example:8443/moved"),
                    ("GET web/old", "302 to http://web/new"),
                    ("GET web/authors/7", "200 web: GET /authors/7"),
                ],
            )],
        ),
        stage(
            "rewrites",
            [
                step(
                    "rewrites",
                    objects::rewrite("{ type: ReplacePrefixMatch, replacePrefixMatch: /v2/ }"),
                    &[
                        ("GET web/api/a%20b?c=/api", "200 web: GET /v2/a%20b?c=/api of inner.example"),
                        ("GET web/apis", "200 web: GET /apis"),
                    ],
                ),
                step(
                    "rewrites",
                    objects::rewrite("{ type: ReplacePrefixMatch, replacePrefixMatch: '' }"),
                    &[("GET web/api/a%20b?c=/api", "200 web: GET /a%20b?c=/api of inner.example")],
                ),
                step(
                    "rewrites",
                    objects::rewrite("{ type: ReplaceFullPath, replaceFullPath: /one }"),
                    &[
                        ("GET web/api/a%20b?c=/api", "200 web: GET /one?c=/api of inner.example"),
                        ("GET web/apis", "200 web: GET /apis"),
                    ],
                ),
            ],
        ),
        stage(
            "headers by rule and by backend",
            [step(
                "headers",
                objects::headers(),
                &[
                    (
                        "GET web/headed/web x-debug:1 x-rule:mine",
                        "200 web: GET /headed/web x-backend=web x-more=too x-rule=ours, answered x-from=web, answered x-rule=ours",
                    ),
                    (
                        "GET web/headed/next x-more:1",
                        "200 next: GET /headed/next x-backend=next x-more=1,too x-rule=ours, answered x-from=next, answered x-rule=ours",
                    ),
                    ("GET web/ x-debug:1", "200 web: GET / x-debug=1"),
                ],
            )],
        ),
        stage(
            "timeouts of routes",
            [
                step("rest", objects::REST_OF_NEXT, &[]),
                step(
                    "timeouts",
                    objects::timeouts(),
                    &[
                        ("GET next/request echo-delay-ms:400", "504 REQUEST_TIMEOUT"),
                        ("GET next/response echo-delay-ms:400", "504 RESPONSE_TIMEOUT"),
                        ("GET next/idle echo-delay-ms:400", "504 IDLE_TIMEOUT"),
                        ("GET next/of-rule echo-delay-ms:400", "504 REQUEST_TIMEOUT"),
                        ("GET next/of-backend echo-delay-ms:400", "504 RESPONSE_TIMEOUT"),
                        // The second attempt is the last, which may take its time.
                        ("GET next/again echo-delay-ms:400 echo-first:1 echo-key:*", "200 next: GET /again, seen 2"),
                        // What is too long to be kept is not sent again.
                        ("POST next/again echo-delay-ms:400 body:100000", "504 RESPONSE_HEADERS_TIMEOUT"),
                        ("GET next/other echo-delay-ms:400", "200 next: GET /other"),
                    ],
                ),
            ],
        ),
        stage(
            "timeouts and retries of a Service",
            [
                step(
                    "other-service",
                    app::other_service("timeout.linkerd.io/request: 100ms"),
                    &[
                        ("GET other/ echo-delay-ms:400", "504 REQUEST_TIMEOUT"),
                        ("GET next/ echo-delay-ms:400", "200 next: GET /"),
                    ],
                ),
                step(
                    "other-service",
                    app::other_service("retry.linkerd.io/http: '503', retry.linkerd.io/limit: '3'"),
                    &[
                        ("GET other/ echo-delay-ms:400", "200 next: GET /"),
                        ("GET other/ echo-status:503 echo-key:*", "503 next: GET /, seen 4"),
                        ("GET other/ echo-status:500 echo-key:*", "500 next: GET /, seen 1"),
                        ("GET next/ echo-status:503 echo-key:*", "503 next: GET /, seen 1"),
                    ],
                ),
            ],
        ),
        stage(
            "retries of some requests",
            [
                step("rest", objects::REST_OF_NEXT, &[]),
                step(
                    "retries",
                    objects::RETRIES,
                    &[
                        ("GET next/ echo-status:503 echo-first:2 echo-key:*", "200 next: GET /, seen 3"),
                        ("GET next/ echo-status:503 echo-key:*", "503 next: GET /, seen 3"),
                        // No rule of that route is for it.
                        ("POST next/ echo-status:503 echo-key:* body:10", "503 next: POST /, seen 1"),
                        // Who writes that a route's requests may be sent again means each of them, whatever its method.
                        (
                            "POST next/kept echo-status:503 echo-first:1 echo-key:* body:1000",
                            "200 next: POST /kept, seen 2",
                        ),
                        (
                            "PUT next/kept echo-status:503 echo-first:1 echo-key:* body:1000",
                            "200 next: PUT /kept, seen 2",
                        ),
                        // It cannot be kept to its end.
                        (
                            "PUT next/kept echo-status:503 echo-first:1 echo-key:* body:100000",
                            "503 next: PUT /kept, seen 1",
                        ),
                    ],
                ),
            ],
        ),
        stage(
            "retries of calls",
            [
                step(
                    "other-service",
                    app::other_service("retry.linkerd.io/grpc: 'unavailable,internal', retry.linkerd.io/limit: '2'"),
                    &[
                        // They are asked for of what a GRPCRoute takes.
                        (
                            "CALL other/shop.v1.Prices/Quote echo-grpc-status:14 echo-first:1 echo-key:*",
                            "200/14 next: POST /shop.v1.Prices/Quote, seen 1",
                        ),
                    ],
                ),
                step(
                    "prices",
                    objects::prices(""),
                    &[
                        (
                            "CALL other/shop.v1.Prices/Quote echo-grpc-status:14 echo-first:1 echo-key:*",
                            "200 next: POST /shop.v1.Prices/Quote, seen 2",
                        ),
                        (
                            "CALL other/shop.v1.Prices/Quote echo-grpc-status:13 echo-first:2 body:1000 echo-key:*",
                            "200 next: POST /shop.v1.Prices/Quote, seen 3",
                        ),
                        (
                            "CALL other/shop.v1.Prices/Quote echo-grpc-status:14 echo-key:*",
                            "200/14 next: POST /shop.v1.Prices/Quote, seen 3",
                        ),
                        // Of another code, of HTTP alone, or too long to be kept.
                        (
                            "CALL other/shop.v1.Prices/Quote echo-grpc-status:8 echo-key:*",
                            "200/8 next: POST /shop.v1.Prices/Quote, seen 1",
                        ),
                        (
                            "CALL other/shop.v1.Prices/Quote echo-status:503 echo-key:*",
                            "503 next: POST /shop.v1.Prices/Quote, seen 1",
                        ),
                        (
                            "CALL other/shop.v1.Prices/Quote echo-grpc-status:14 body:100000 echo-key:*",
                            "200/14 next: POST /shop.v1.Prices/Quote, seen 1",
                        ),
                    ],
                ),
                step(
                    "prices",
                    objects::prices("retry.linkerd.io/grpc: resource-exhausted, retry.linkerd.io/limit: '1'"),
                    &[
                        (
                            "CALL other/shop.v1.Prices/Quote echo-grpc-status:8 echo-first:1 echo-key:*",
                            "200 next: POST /shop.v1.Prices/Quote, seen 2",
                        ),
                        (
                            "CALL other/shop.v1.Prices/Quote echo-grpc-status:8 echo-key:*",
                            "200/8 next: POST /shop.v1.Prices/Quote, seen 2",
                        ),
                        // What a route says of retries stands for all that its Service says of them.
                        (
                            "CALL other/shop.v1.Prices/Quote echo-grpc-status:14 echo-key:*",
                            "200/14 next: POST /shop.v1.Prices/Quote, seen 1",
                        ),
                    ],
                ),
            ],
        ),
        stage(
            "a ServiceProfile",
            [step(
                "profile",
                objects::PROFILE,
                &[
                    ("GET next/profile echo-status:503 echo-first:1 echo-key:*", "200 next: GET /profile, seen 2"),
                    ("POST next/profile echo-status:503 echo-first:1 echo-key:*", "503 next: POST /profile, seen 1"),
                    ("GET next/slow echo-delay-ms:400", "504 PROFILE_TIMEOUT"),
                ],
            )],
        ),
        stage(
            "a ServiceProfile beside a route",
            [
                step(
                    "beside",
                    objects::BESIDE,
                    &[
                        ("GET other/web", "200 web: GET /web"),
                        ("GET other/ echo-status:503 echo-key:*", "503 next: GET /, seen 4"),
                        ("GET other/slow echo-delay-ms:400", "504 REQUEST_TIMEOUT"),
                    ],
                ),
                step(
                    "profile",
                    objects::profile_of_other(
                        "routes: [{ name: slow, condition: { pathRegex: /profile }, timeout: 100ms }]",
                    ),
                    &[
                        ("GET other/web", "200 next: GET /web"),
                        ("GET other/ echo-status:503 echo-key:*", "503 next: GET /, seen 1"),
                        ("GET other/slow echo-delay-ms:400", "200 next: GET /slow"),
                        ("GET other/profile echo-delay-ms:400", "504 PROFILE_TIMEOUT"),
                    ],
                ),
                step(
                    "profile",
                    objects::profile_of_other(
                        "dstOverrides: [{ authority: web.traffic.svc.cluster.local, weight: 1 }]",
                    ),
                    &[
                        ("GET other/", "200 web: GET /"),
                        ("GET other/web", "200 web: GET /web"),
                        ("GET other/ echo-status:503 echo-key:*", "503 web: GET /, seen 1"),
                        ("GET other/slow echo-delay-ms:400", "200 web: GET /slow"),
                    ],
                ),
                step(
                    "profile",
                    objects::profile_of_other("retryBudget: { retryRatio: 0.5, minRetriesPerSecond: 20, ttl: 10s }"),
                    &[
                        // It asks for neither routes nor targets.
                        ("GET other/", "200 next: GET /"),
                        ("GET other/web", "200 web: GET /web"),
                        ("GET other/ echo-status:503 echo-key:*", "503 next: GET /, seen 4"),
                        ("GET other/slow echo-delay-ms:400", "504 REQUEST_TIMEOUT"),
                    ],
                ),
            ],
        ),
        Stage {
            name: "circuit breaking",
            steps: vec![Step {
                put: "web-service",
                objects: app::web_service(
                    "balancer.linkerd.io/failure-accrual: consecutive, \
                 balancer.linkerd.io/failure-accrual-consecutive-max-failures: '3', \
                 balancer.linkerd.io/failure-accrual-consecutive-min-penalty: 3s, \
                 balancer.linkerd.io/failure-accrual-consecutive-jitter-ratio: '0'",
                ),
                shows: &[],
                holds: Some(holds::who_fails_is_left_out),
            }],
            asks_for: &[],
            then: Some(holds::who_has_failed_is_asked_again),
        },
        Stage {
            name: "rate limits",
            steps: vec![
                step("server", objects::server("all-unauthenticated"), &[("GET web/ as:guest", "200 web: GET /")]),
                Step {
                    put: "limit",
                    objects: objects::LIMIT.to_owned(),
                    shows: &[],
                    holds: Some(holds::guests_ask_too_often),
                },
            ],
            asks_for: &[],
            then: Some(holds::others_do_not_ask_too_often),
        },
        Stage {
            name: "a rate limit of all clients",
            steps: vec![
                step("server", objects::server("all-unauthenticated"), &[("GET web/ as:guest", "200 web: GET /")]),
                Step {
                    put: "limit",
                    objects: objects::LIMIT_OF_ALL.to_owned(),
                    shows: &[],
                    holds: Some(holds::guests_get_what_the_load_leaves),
                },
            ],
            asks_for: &["429"],
            then: None,
        },
        stage(
            "egress",
            [
                step(
                    "egress",
                    objects::EGRESS,
                    &[
                        ("GET outside/v1 host:api.example", "403 FAULT_INJECTED"),
                        ("GET outside/ as:guest", "403 FAULT_INJECTED"),
                        ("GET web/", "200 web: GET /"),
                    ],
                ),
                step(
                    "allowed",
                    objects::ALLOWED,
                    &[
                        ("GET outside/v1 host:api.example", "200 outside: GET /v1"),
                        ("GET outside/v1 host:other.example", "403 FAULT_INJECTED"),
                        ("POST outside/v1 host:api.example", "403 FAULT_INJECTED"),
                        ("GET outside/v2 host:api.example", "403 FAULT_INJECTED"),
                    ],
                ),
            ],
        ),
        stage(
            "egress of calls",
            [
                step(
                    "egress",
                    objects::EGRESS,
                    &[
                        ("CALL outside/shop.v1.Prices/Quote host:api.example", "200/9 FAULT_INJECTED"),
                        ("CALL outside/shop.v1.Prices/List host:api.example", "200/9 FAULT_INJECTED"),
                        ("CALL outside/shop.v1.Prices/Quote host:other.example", "200/9 FAULT_INJECTED"),
                        ("GET outside/ host:api.example http:2", "403 FAULT_INJECTED"),
                    ],
                ),
                step(
                    "allowed",
                    objects::ALLOWED_CALLS,
                    &[
                        (
                            "CALL outside/shop.v1.Prices/Quote host:api.example",
                            "200 outside: POST /shop.v1.Prices/Quote",
                        ),
                        ("CALL outside/shop.v1.Prices/List host:api.example", "200/7 FAULT_INJECTED"),
                        ("CALL outside/shop.v1.Prices/Quote host:other.example", "200/7 FAULT_INJECTED"),
                        // It is no call.
                        ("GET outside/ host:api.example http:2", "404 ROUTE_NOT_FOUND"),
                    ],
                ),
            ],
        ),
        Stage {
            name: "default deny, then least privilege",
            steps: vec![
                step(
                    "server",
                    objects::server("deny"),
                    &[("GET web/open", "403"), ("GET web/open as:guest", "403"), ("GET next/", "200 next: GET /")],
                ),
                step(
                    "grants",
                    objects::GRANTS,
                    &[
                        ("GET web/open", "200 web: GET /open"),
                        ("GET web/load", "200 web: GET /load"),
                        ("POST web/open", "403"),
                        ("GET web/secret", "403"),
                        ("GET web/open as:guest", "403"),
                    ],
                ),
            ],
            asks_for: &["403"],
            then: None,
        },
        Stage {
            name: "who is let in by which authentication",
            steps: vec![
                step("server", objects::server("deny"), &[("GET web/", "403"), ("GET web/ as:guest", "403")]),
                step("policy", objects::by_identity(), &[("GET web/", WEB), ("GET web/ as:guest", "403")]),
                step("policy", objects::by_network(), &[("GET web/", WEB), ("GET web/ as:guest", WEB)]),
                step("policy", objects::by_both(), &[("GET web/", WEB), ("GET web/ as:guest", "403")]),
                step("policy", objects::by_half_of_both(), &[("GET web/", "403"), ("GET web/ as:guest", "403")]),
                step("policy", objects::of_the_namespace(), &[("GET web/", WEB), ("GET web/ as:guest", WEB)]),
                step("policy", objects::by_half_of_both(), &[("GET web/", "403"), ("GET web/ as:guest", "403")]),
                step("older", objects::BY_THE_OLDER_FORM, &[("GET web/", "403"), ("GET web/ as:guest", WEB)]),
                step("policy", objects::by_nothing(), &[("GET web/", WEB), ("GET web/ as:guest", WEB)]),
            ],
            asks_for: &["403"],
            then: None,
        },
        Stage {
            name: "an authentication that comes after its policy",
            steps: vec![
                step("server", objects::server("deny"), &[("GET web/", "403"), ("GET web/ as:guest", "403")]),
                step("policy", objects::by_who_is_not_there(), &[("GET web/", "403"), ("GET web/ as:guest", "403")]),
                step("late", objects::late("client"), &[("GET web/", WEB), ("GET web/ as:guest", "403")]),
                step("late", objects::late("guest"), &[("GET web/", "403"), ("GET web/ as:guest", WEB)]),
            ],
            asks_for: &["403"],
            then: None,
        },
        Stage {
            name: "audit",
            steps: vec![Step {
                put: "server",
                objects: objects::server("audit"),
                shows: &[("GET web/", "200 web: GET /"), ("GET web/ as:guest", "200 web: GET /")],
                holds: Some(holds::who_would_be_denied_is_counted),
            }],
            asks_for: &[],
            then: None,
        },
        Stage {
            name: "scale to 0 and back",
            steps: vec![step(
                "web",
                app::none_of_web(),
                &[("GET web/", "504 FAILFAST"), ("GET next/", "200 next: GET /")],
            )],
            asks_for: &["504 FAILFAST"],
            then: None,
        },
    ]
}

/// What takes its time, for where there is some.
pub(super) fn longer() -> Vec<Stage> {
    vec![Stage {
        name: "circuit breaking by the success rate",
        steps: vec![Step {
            put: "web-service",
            // Nobody fails so often in a row, and a look is over before the penalty is.
            objects: app::web_service(
                "balancer.linkerd.io/failure-accrual: unified, \
                 balancer.linkerd.io/failure-accrual-consecutive-max-failures: '1000000', \
                 balancer.linkerd.io/failure-accrual-consecutive-min-penalty: 20s, \
                 balancer.linkerd.io/failure-accrual-consecutive-jitter-ratio: '0'",
            ),
            shows: &[],
            holds: Some(holds::who_fails_too_often_is_left_out),
        }],
        asks_for: &[],
        then: Some(holds::who_has_failed_is_asked_again),
    }]
}
