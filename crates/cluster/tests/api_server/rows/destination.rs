//! What is behind a name, and what an address is.

use super::{super::lab::ApiServer, *};
use weft_testkit::api_server::FakeApi;

#[tokio::test]
async fn what_is_behind_a_name() {
    endpoints(&FakeApi::start().await.unwrap()).await;
}

/// Part 6.2.
pub(crate) async fn endpoints(api: &impl ApiServer) {
    let at = |port: u16| destination(&format!("{WEB}:{port}"));
    let headless = json!({"spec": {"clusterIP": "None"}});
    let zone = |zone: &str| json!({"zone": zone, "hints": {"forZones": [{"name": zone}]}});
    let local = |policy: &str| {
        let mut all = two(json!({"nodeName": "n1"}), json!({"nodeName": "n2"}));
        all[0] = web(json!({"spec": {"internalTrafficPolicy": policy}}));
        all
    };
    let families = json!({"status": {"podIPs": [{"ip": "10.1.0.1"}, {"ip": "fd00::1"}]}});
    let mut six = slice("web-6", &[("a", "fd00::1")]);
    (six["addressType"], six["ports"]) = (json!("IPv6"), json!([{"name": "http", "port": 8080}]));
    let discovered = json!({"multicluster.linkerd.io/remote-discovery": "web@east"});
    let named = json!({"spec": {"hostname": "web-0", "subdomain": "web"}});
    let label = json!({"metadata": {"labels": {"linkerd.io/control-plane-ns": "another"}}});
    let external = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
    let mut outside = web(external);
    for field in ["clusterIP", "selector"] {
        outside["spec"].as_object_mut().unwrap().remove(field);
    }
    let in_pod = |annotations: Value| vec![web(json!({})), a(annotated(annotations)), behind().remove(2)];
    let listens = |what: &str, port: u16| json!({"name": format!("LINKERD2_PROXY_{what}_LISTEN_ADDR"), "value": format!("0.0.0.0:{port}")});
    let env = json!([listens("INBOUND", 5143), listens("ADMIN", 5191)]);
    let moved = json!({"spec": {"containers": [{"name": "web", "image": "web"}, {"name": "linkerd-proxy", "image": "proxy", "env": env}]}});
    let moved = vec![web(json!({})), a(moved), behind().remove(2)];
    let leaving = json!({"conditions": {"ready": false, "serving": true, "terminating": true}});
    let mut published = two(json!({"conditions": {"ready": true, "serving": false, "terminating": true}}), json!({}));
    published[0] = web(json!({"spec": {"publishNotReadyAddresses": true}}));
    published[1] = a(json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}));
    // As many as one slice has, and one.
    let many: Vec<(String, String)> = (1..=101).map(|n| (format!("p{n}"), format!("10.1.0.{n}"))).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, ip)| (name.as_str(), ip.as_str())).collect();
    let all_of_them: Vec<String> = many.iter().map(|(_, ip)| format!("{ip}:8080/h2=web")).collect();
    let all_of_them = all_of_them.join(" ");
    let part =
        |name: &str, of: &[(&str, &str)]| merged(slice(name, of), json!({"ports": [{"name": "http", "port": 8080}]}));
    let mut several = vec![web(json!({})), part("web-1", &many[..100]), part("web-2", &many[100..])];
    several.extend(many.iter().map(|(name, ip)| pod(name, ip)));
    let rows: Vec<Row> = vec![
        ("no Service", vec![], at(80), "not found"),
        ("no name of a Service", vec![], destination("example.com:80"), "invalid"),
        ("only another name", vec![outside], at(80), "invalid"),
        ("in other clusters", vec![web(annotated(discovered))], at(80), "not carried out"),
        ("a port by its name", behind(), at(80), "10.1.0.1:8080/h2=web"),
        ("a port that is not declared", behind(), at(99), "10.1.0.1:99/h2=web"),
        ("a usual opaque port", behind(), at(5432), "10.1.0.1:5432/opaque=web"),
        (
            "opaque by annotation",
            in_pod(json!({"config.linkerd.io/opaque-ports": "http"})),
            at(80),
            "10.1.0.1:8080/opaque=web",
        ),
        ("opaque by a Server", with([server(json!({"proxyProtocol": "opaque"}))]), at(80), "10.1.0.1:8080/opaque=web"),
        (
            "not opaque by a Server",
            with([server(json!({"port": 5432, "proxyProtocol": "HTTP/1"}))]),
            at(5432),
            "10.1.0.1:5432/h2=web",
        ),
        ("past its proxy", in_pod(json!({"config.linkerd.io/skip-inbound-ports": "8080"})), at(80), "10.1.0.1:8080"),
        ("of another mesh", vec![web(json!({})), a(label), behind().remove(2)], at(80), "10.1.0.1:8080"),
        ("not ready", two(json!({"conditions": {"ready": false}}), json!({})), at(80), "10.1.0.2:8080/h2=web"),
        (
            "headless",
            vec![web(headless.clone()), a(json!({})), slices(&[("a", "10.1.0.1", json!({}))])],
            at(80),
            "10.1.0.1:8080/h2=web",
        ),
        (
            "one pod of a StatefulSet",
            vec![
                web(headless),
                a(named),
                pod("b", "10.1.0.2"),
                slices(&[
                    ("a", "10.1.0.1", json!({"hostname": "web-0"})),
                    ("b", "10.1.0.2", json!({"hostname": "web-1"})),
                ]),
            ],
            destination(&format!("web-0.{WEB}:80")),
            "10.1.0.1:8080/h2=web",
        ),
        ("hints", two(zone("east"), zone("west")), at(80), "10.1.0.1:8080/h2=web"),
        ("not all have hints", two(zone("east"), json!({})), at(80), "10.1.0.1:8080/h2=web 10.1.0.2:8080/h2=web"),
        (
            "hints for nobody here",
            two(zone("north"), zone("west")),
            at(80),
            "10.1.0.1:8080/h2=web 10.1.0.2:8080/h2=web",
        ),
        ("the node's own", local("Local"), at(80), "10.1.0.1:8080/h2=web"),
        ("of every node", local("Cluster"), at(80), "10.1.0.1:8080/h2=web 10.1.0.2:8080/h2=web"),
        (
            "both families",
            vec![web(json!({})), a(families), slices(&[("a", "10.1.0.1", json!({}))]), six],
            at(80),
            "[fd00::1]:8080/h2=web",
        ),
        (
            "a gateway of another cluster",
            gateway(),
            at(80),
            "192.0.2.1:4143^none/h2=gateway@web.shop.svc.east.local:80",
        ),
        ("an ExternalWorkload", vm(json!([{"port": 8080}])), at(80), "192.0.2.1:8080/h2=spiffe://root.local/vm"),
        (
            "where its proxy listens",
            vm(json!([{"port": 8080}, {"name": "linkerd-proxy", "port": 5143}])),
            at(80),
            "192.0.2.1:8080^5143/h2=spiffe://root.local/vm",
        ),
        ("a proxy's inbound port", behind(), at(4143), "10.1.0.1:4143/h2=web"),
        ("its control port", behind(), at(4190), "10.1.0.1:4190^none/h2=web"),
        ("its admin port", behind(), at(4191), "10.1.0.1:4191^none/h2=web"),
        ("where a pod's proxy listens", moved.clone(), at(80), "10.1.0.1:8080^5143/h2=web"),
        ("its admin port there", moved.clone(), at(5191), "10.1.0.1:5191^none/h2=web"),
        ("a usual one of another's", moved, at(4191), "10.1.0.1:4191^5143/h2=web"),
        ("what terminates", two(leaving, json!({})), at(80), "10.1.0.2:8080/h2=web"),
        ("addresses that are published all the same", published, at(80), "10.1.0.1:8080/h2=web 10.1.0.2:8080/h2=web"),
        ("more than one slice has", several, at(80), all_of_them.as_str()),
    ];
    hold(api, rows).await;
}

#[tokio::test]
async fn what_an_address_is() {
    let api = FakeApi::start().await.unwrap();
    profiles(&api).await;
    // A real API server gives no address to two.
    let both = || vec![web(json!({})), merged(web(json!({})), json!({"metadata": {"name": "same"}}))];
    let at = format!("{SERVICE_IP}:80");
    let rows = vec![
        ("two Services of one address", both(), profiled(&at), "ambiguous"),
        ("and what is sent there", both(), sent(&at), "ambiguous"),
    ];
    hold(&api, rows).await;
}

/// Part 6.3.
pub(crate) async fn profiles(api: &impl ApiServer) {
    let host_port = json!([{"name": "http", "containerPort": 8080, "hostPort": 9090, "protocol": "TCP"}]);
    let containers = json!([{"name": "web", "image": "web", "ports": host_port}]);
    let on_node =
        json!({"spec": {"containers": containers}, "status": {"hostIP": "10.0.0.9", "hostIPs": [{"ip": "10.0.0.9"}]}});
    let condition = json!({"method": "GET"});
    let sp = object("ServiceProfile", WEB, json!({"routes": [{"name": "get", "condition": condition}]}));
    let opaque = annotated(json!({"config.linkerd.io/opaque-ports": "http"}));
    let headless = json!({"spec": {"clusterIP": "None"}});
    let named = json!({"spec": {"hostname": "web-0", "subdomain": "web"}});
    let mut selected = vm(json!([{"port": 8080}]));
    selected[0] = web(headless.clone());
    selected[1] = merged(selected[1].clone(), json!({"metadata": {"labels": {"app": "web"}}}));
    let is = "web.ns.svc.cluster.local of Service web";
    let rows: Vec<Row> = vec![
        ("an address of a Service", behind(), profiled(&format!("{SERVICE_IP}:80")), is),
        ("its name", behind(), profiled(&format!("{WEB}:80")), is),
        (
            "a usual opaque port",
            behind(),
            profiled(&format!("{SERVICE_IP}:5432")),
            "web.ns.svc.cluster.local of Service web opaque",
        ),
        (
            "opaque by annotation",
            vec![web(opaque)],
            profiled(&format!("{SERVICE_IP}:80")),
            "web.ns.svc.cluster.local of Service web opaque",
        ),
        ("a port that is not declared", behind(), profiled(&format!("{SERVICE_IP}:99")), ""),
        ("no Service", vec![], profiled(&format!("{WEB}:80")), "not found"),
        ("no name of a Service", vec![], profiled("example.com:80"), "invalid"),
        ("an address of a pod", behind(), profiled("10.1.0.1:8080"), "10.1.0.1:8080/h2=web"),
        ("an opaque port of a pod", behind(), profiled("10.1.0.1:5432"), "opaque 10.1.0.1:5432/opaque=web"),
        ("two pods of one address", vec![a(json!({})), pod("b", "10.1.0.1")], profiled("10.1.0.1:8080"), "ambiguous"),
        ("a port of the pod's node", vec![a(on_node.clone())], profiled("10.0.0.9:9090"), "10.1.0.1:8080/h2=web"),
        ("another port of its node", vec![a(on_node)], profiled("10.0.0.9:30080"), "10.0.0.9:30080"),
        ("an address that nobody knows", vec![], profiled("10.1.9.9:80"), "10.1.9.9:80"),
        ("an opaque port there", vec![], profiled("10.1.9.9:3306"), "opaque 10.1.9.9:3306"),
        (
            "one pod of a StatefulSet",
            vec![web(headless), a(named)],
            profiled(&format!("web-0.{WEB}:8080")),
            "10.1.0.1:8080/h2=web",
        ),
        (
            "an address of an ExternalWorkload",
            vm(json!([{"port": 8080}])),
            profiled("192.0.2.1:8080"),
            "192.0.2.1:8080/h2=spiffe://root.local/vm",
        ),
        ("a port that it does not declare", vm(json!([{"port": 8080}])), profiled("192.0.2.1:81"), "192.0.2.1:81"),
        (
            "an opaque port of it",
            vm(json!([{"port": 5432}])),
            profiled("192.0.2.1:5432"),
            "opaque 192.0.2.1:5432/opaque=spiffe://root.local/vm",
        ),
        (
            "an ExternalWorkload of a Service without an address",
            selected,
            profiled(&format!("vm.{WEB}:8080")),
            "192.0.2.1:8080/h2=spiffe://root.local/vm",
        ),
        (
            "a ServiceProfile",
            with([sp]),
            profiled(&format!("{SERVICE_IP}:80")),
            "web.ns.svc.cluster.local of Service web route get",
        ),
    ];
    hold(api, rows).await;
}
