//! The objects of the stages.

/// What clients of `next` do with what no other route of it is for.
pub(super) const REST_OF_NEXT: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: rest, namespace: traffic }
spec:
  parentRefs: [{ group: '', kind: Service, name: next, port: 80 }]
";

pub(super) fn split(web: u32, next: u32) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{ name: split, namespace: traffic }}
spec:
  parentRefs: [{{ group: '', kind: Service, name: web, port: 80 }}]
  rules:
  - backendRefs: [{{ name: web, port: 80, weight: {web} }}, {{ name: next, port: 80, weight: {next} }}]
"
    )
}

pub(super) const TO_NOBODY: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: split, namespace: traffic }
spec:
  parentRefs: [{ group: '', kind: Service, name: web, port: 80 }]
  rules:
  - matches: [{ path: { type: Exact, value: /gone } }]
    backendRefs: [{ name: gone, port: 80 }]
  - {}
";

pub(super) const MATCHES: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: matches, namespace: traffic }
spec:
  parentRefs: [{ group: '', kind: Service, name: web, port: 80 }]
  rules:
  - matches:
    - headers: [{ name: x-canary, value: 'yes' }]
    - headers: [{ type: RegularExpression, name: x-user, value: 'bob-[0-9]+' }]
    - queryParams: [{ name: beta, value: '1' }]
    - path: { type: Exact, value: /orders }
      method: PUT
    - path: { type: PathPrefix, value: /search }
    - path: { type: Exact, value: /only }
    - path: { type: RegularExpression, value: '/v[0-9]+/.*' }
    backendRefs: [{ name: next, port: 80 }]
  - {}
";

pub(super) const CALLS: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: { name: calls, namespace: traffic }
spec:
  parentRefs: [{ group: '', kind: Service, name: other, port: 80 }]
  rules:
  - matches: [{ method: { service: shop.v1.Prices, method: Quote } }]
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: { set: [{ name: x-call, value: quote }] }
    backendRefs: [{ name: web, port: 80 }]
  - backendRefs: [{ name: next, port: 80 }]
";

pub(super) const REDIRECTS: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: redirects, namespace: traffic }
spec:
  parentRefs: [{ group: '', kind: Service, name: web, port: 80 }]
  rules:
  - matches: [{ path: { type: PathPrefix, value: /writers } }]
    filters:
    - type: RequestRedirect
      requestRedirect: { path: { type: ReplacePrefixMatch, replacePrefixMatch: /authors }, statusCode: 301 }
  - matches: [{ path: { type: Exact, value: /moved } }]
    filters:
    - type: RequestRedirect
      requestRedirect: { scheme: https, hostname: other.example, port: 8443, statusCode: 301 }
  - matches: [{ path: { type: Exact, value: /old } }]
    filters:
    - type: RequestRedirect
      requestRedirect: { path: { type: ReplaceFullPath, replaceFullPath: /new } }
  - {}
";

pub(super) fn rewrite(path: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{ name: rewrites, namespace: traffic }}
spec:
  parentRefs: [{{ group: '', kind: Service, name: web, port: 80 }}]
  rules:
  - matches: [{{ path: {{ type: PathPrefix, value: /api }} }}]
    filters:
    - type: URLRewrite
      urlRewrite: {{ hostname: inner.example, path: {path} }}
  - {{}}
"
    )
}

/// One rule for each backend, with the same filters.
pub(super) fn headers() -> String {
    let rule = |backend: &str| {
        format!(
            "  - matches: [{{ path: {{ type: PathPrefix, value: /headed/{backend} }} }}]
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier:
        set: [{{ name: x-rule, value: ours }}]
        add: [{{ name: x-more, value: too }}]
        remove: [x-debug]
    - type: ResponseHeaderModifier
      responseHeaderModifier: {{ set: [{{ name: x-rule, value: ours }}] }}
    backendRefs:
    - name: {backend}
      port: 80
      filters:
      - type: RequestHeaderModifier
        requestHeaderModifier: {{ set: [{{ name: x-backend, value: {backend} }}] }}
      - type: ResponseHeaderModifier
        responseHeaderModifier: {{ add: [{{ name: x-from, value: {backend} }}] }}
"
        )
    };
    "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: headers, namespace: traffic }
spec:
  parentRefs: [{ group: '', kind: Service, name: web, port: 80 }]
  rules:
  - {}
"
    .to_owned()
        + &rule("web")
        + &rule("next")
}

/// A route of `next` for a path, with annotations or timeouts of its rule.
fn timed(name: &str, annotations: &str, of_rule: &str) -> String {
    format!(
        "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{ name: {name}, namespace: traffic, annotations: {{ {annotations} }} }}
spec:
  parentRefs: [{{ group: '', kind: Service, name: next, port: 80 }}]
  rules:
  - matches: [{{ path: {{ type: PathPrefix, value: /{name} }} }}]
    timeouts: {{ {of_rule} }}
"
    )
}

pub(super) fn timeouts() -> String {
    timed("request", "timeout.linkerd.io/request: 100ms", "")
        + &timed("response", "timeout.linkerd.io/response: 100ms", "")
        + &timed("idle", "timeout.linkerd.io/idle: 100ms", "")
        + &timed("again", "retry.linkerd.io/timeout: 100ms, retry.linkerd.io/limit: '1'", "")
        + &timed("of-rule", "", "request: 100ms")
        + &timed("of-backend", "", "backendRequest: 100ms")
}

pub(super) const RETRIES: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: retries
  namespace: traffic
  annotations: { retry.linkerd.io/http: 5xx, retry.linkerd.io/limit: '2' }
spec:
  parentRefs: [{ group: '', kind: Service, name: next, port: 80 }]
  rules:
  - matches: [{ method: GET }, { path: { type: Exact, value: /kept } }]
";

/// The calls of one service that go to `other`, by a route with these annotations.
pub(super) fn prices(annotations: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{ name: prices, namespace: traffic, annotations: {{ {annotations} }} }}
spec:
  parentRefs: [{{ group: '', kind: Service, name: other, port: 80 }}]
  rules:
  - matches: [{{ method: {{ service: shop.v1.Prices }} }}]
"
    )
}

pub(super) const PROFILE: &str = "apiVersion: linkerd.io/v1alpha2
kind: ServiceProfile
metadata: { name: next.traffic.svc.cluster.local, namespace: traffic }
spec:
  routes:
  - { name: slow, condition: { pathRegex: /slow }, timeout: 100ms }
  - { name: read, condition: { method: GET }, isRetryable: true }
";

/// What a profile stands beside: other backends, a timeout and retries.
pub(super) const BESIDE: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: beside
  namespace: traffic
  annotations: { retry.linkerd.io/http: '503', retry.linkerd.io/limit: '3' }
spec:
  parentRefs: [{ group: '', kind: Service, name: other, port: 80 }]
  rules:
  - matches: [{ path: { type: Exact, value: /web } }]
    backendRefs: [{ name: web, port: 80 }]
  - matches: [{ path: { type: Exact, value: /slow } }]
    timeouts: { request: 100ms }
  - {}
";

/// The profile of `other` that says this.
pub(super) fn profile_of_other(spec: &str) -> String {
    format!(
        "apiVersion: linkerd.io/v1alpha2
kind: ServiceProfile
metadata: {{ name: other.traffic.svc.cluster.local, namespace: traffic }}
spec:
  {spec}
"
    )
}

/// Whom the port of `web` lets in.
pub(super) fn server(access: &str) -> String {
    format!(
        "apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {{ name: web, namespace: traffic }}
spec: {{ podSelector: {{ matchLabels: {{ app: web }} }}, port: http, proxyProtocol: HTTP/1, accessPolicy: {access} }}
"
    )
}

pub(super) const LIMIT: &str = "apiVersion: policy.linkerd.io/v1alpha1
kind: HTTPLocalRateLimitPolicy
metadata: { name: web, namespace: traffic }
spec:
  targetRef: { group: policy.linkerd.io, kind: Server, name: web }
  identity: { requestsPerSecond: 1 }
  overrides: [{ requestsPerSecond: 100000, clientRefs: [{ kind: ServiceAccount, name: client }] }]
";

/// Less than the load asks each of two pods for.
pub(super) const LIMIT_OF_ALL: &str = "apiVersion: policy.linkerd.io/v1alpha1
kind: HTTPLocalRateLimitPolicy
metadata: { name: web, namespace: traffic }
spec:
  targetRef: { group: policy.linkerd.io, kind: Server, name: web }
  total: { requestsPerSecond: 20 }
";

pub(super) const EGRESS: &str = "apiVersion: policy.linkerd.io/v1alpha1
kind: EgressNetwork
metadata: { name: outside, namespace: traffic }
spec: { trafficPolicy: Deny, networks: [{ cidr: OUTSIDE_IP/32 }] }
";

pub(super) const ALLOWED: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: allowed, namespace: traffic }
spec:
  parentRefs: [{ group: policy.linkerd.io, kind: EgressNetwork, name: outside, port: OUTSIDE_PORT }]
  hostnames: [api.example]
  rules:
  - matches: [{ path: { type: Exact, value: /v1 }, method: GET }]
";

pub(super) const ALLOWED_CALLS: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: { name: allowed, namespace: traffic }
spec:
  parentRefs: [{ group: policy.linkerd.io, kind: EgressNetwork, name: outside, port: OUTSIDE_PORT }]
  hostnames: [api.example]
  rules:
  - matches: [{ method: { service: shop.v1.Prices, method: Quote } }]
";

/// The kubelet's probes want a route of their own where there are any.
pub(super) const GRANTS: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: open, namespace: traffic }
spec:
  parentRefs: [{ group: policy.linkerd.io, kind: Server, name: web }]
  rules:
  - matches: [{ path: { type: Exact, value: /open }, method: GET }, { path: { type: Exact, value: /load }, method: GET }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: probes, namespace: traffic }
spec:
  parentRefs: [{ group: policy.linkerd.io, kind: Server, name: web }]
  rules:
  - matches: [{ path: { type: Exact, value: /ready }, method: GET }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: rest, namespace: traffic }
spec:
  parentRefs: [{ group: policy.linkerd.io, kind: Server, name: web }]
---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: { name: probes, namespace: traffic }
spec:
  targetRef: { group: gateway.networking.k8s.io, kind: HTTPRoute, name: probes }
  requiredAuthenticationRefs: []
---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: { name: open, namespace: traffic }
spec:
  targetRef: { group: gateway.networking.k8s.io, kind: HTTPRoute, name: open }
  requiredAuthenticationRefs: [{ kind: ServiceAccount, name: client }]
";

/// Who is let in to the Server `web` by this target and these authentications.
fn policy(target: &str, required: &str) -> String {
    format!(
        "apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {{ name: web, namespace: traffic }}
spec:
  targetRef: {{ {target} }}
  requiredAuthenticationRefs: [{required}]
---
apiVersion: policy.linkerd.io/v1alpha1
kind: MeshTLSAuthentication
metadata: {{ name: client, namespace: traffic }}
spec: {{ identityRefs: [{{ kind: ServiceAccount, name: client }}] }}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: MeshTLSAuthentication
metadata: {{ name: anybody, namespace: traffic }}
spec: {{ identities: ['*'] }}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: NetworkAuthentication
metadata: {{ name: anywhere, namespace: traffic }}
spec: {{ networks: [{{ cidr: 0.0.0.0/0 }}] }}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: NetworkAuthentication
metadata: {{ name: nowhere, namespace: traffic }}
spec: {{ networks: [{{ cidr: 198.51.100.0/24 }}] }}
"
    )
}

/// Whom the policy below waits for.
pub(super) fn late(account: &str) -> String {
    format!(
        "apiVersion: policy.linkerd.io/v1alpha1
kind: MeshTLSAuthentication
metadata: {{ name: late, namespace: traffic }}
spec: {{ identityRefs: [{{ kind: ServiceAccount, name: {account} }}] }}
"
    )
}

pub(super) fn by_who_is_not_there() -> String {
    policy(WEB, "{ group: policy.linkerd.io, kind: MeshTLSAuthentication, name: late }")
}

const WEB: &str = "group: policy.linkerd.io, kind: Server, name: web";
const ANYWHERE: &str = "{ group: policy.linkerd.io, kind: NetworkAuthentication, name: anywhere }";
const NOWHERE: &str = "{ group: policy.linkerd.io, kind: NetworkAuthentication, name: nowhere }";
const CLIENT: &str = "{ group: policy.linkerd.io, kind: MeshTLSAuthentication, name: client }";
const ANYBODY: &str = "{ group: policy.linkerd.io, kind: MeshTLSAuthentication, name: anybody }";

pub(super) fn by_identity() -> String {
    policy(WEB, CLIENT)
}

pub(super) fn by_network() -> String {
    policy(WEB, ANYWHERE)
}

pub(super) fn by_both() -> String {
    policy(WEB, &format!("{CLIENT}, {ANYWHERE}"))
}

pub(super) fn by_half_of_both() -> String {
    policy(WEB, &format!("{CLIENT}, {NOWHERE}"))
}

pub(super) fn of_the_namespace() -> String {
    policy("kind: Namespace, name: traffic", ANYBODY)
}

pub(super) fn by_nothing() -> String {
    policy(WEB, "")
}

pub(super) const BY_THE_OLDER_FORM: &str = "apiVersion: policy.linkerd.io/v1beta1
kind: ServerAuthorization
metadata: { name: web, namespace: traffic }
spec:
  server: { name: web }
  client: { networks: [{ cidr: 0.0.0.0/0 }], meshTLS: { serviceAccounts: [{ name: guest }] } }
";
