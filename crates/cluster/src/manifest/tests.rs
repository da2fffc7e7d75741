//! What people are told of good and bad manifests.

use super::*;
use std::fmt::Write;

const GOOD: &str = include_str!("testdata/emojivoto.yaml");
const BAD: &str = include_str!("testdata/mistakes.yaml");

fn read(text: &str) -> Loaded {
    load_text(Path::new("m.yaml"), text)
}

/// What a person is told.
fn report(loaded: &Loaded) -> String {
    let mut text = String::new();
    for located in &loaded.objects {
        writeln!(text, "{}: {}", located.line, located.object.key()).unwrap();
    }
    for p in &loaded.problems {
        let object = p.object.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
        writeln!(text, "{}: {object}: {}: {} ({})", p.line, p.field, p.message, p.remedy).unwrap();
    }
    for i in &loaded.ignored {
        writeln!(text, "{}: {}: {} ignored: {}", i.line, i.object, i.field, i.note).unwrap();
    }
    text
}

#[test]
fn ordinary_manifests_are_accepted() {
    insta::assert_snapshot!(report(&read(GOOD)));
}

#[test]
fn every_mistake_is_named_with_its_line_and_remedy() {
    insta::assert_snapshot!(report(&read(BAD)));
}

#[test]
fn json_is_read_too() {
    let text = "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Service\",\n\t\"metadata\": {\"name\": \"web\"},\n\t\"spec\": {\n\t\t\"selector\": {\"a\": \"b\"},\n\t\t\"ports\": [{\"port\": 0}]\n\t}\n}\n";
    let loaded = read(text);
    assert_eq!(loaded.problems.len(), 1, "{}", report(&loaded));
    assert_eq!((loaded.problems[0].line, loaded.problems[0].field.as_str()), (7, "spec.ports[0].port"));
}

#[test]
fn a_mistake_does_not_stop_what_runs() {
    let before = read(GOOD);
    // One object refused, one renamed.
    let after = read(&GOOD.replace("replicas: 2", "replicas: -2").replace("name: web-headless", "name: web-other"));
    let keys = |located: &[Located]| located.iter().map(|l| l.object.key().to_string()).collect::<Vec<_>>();
    let kept = after.keeping(&before.objects);
    assert!(keys(&kept).contains(&"Deployment emojivoto/web".to_owned()));
    assert!(!keys(&kept).contains(&"Service emojivoto/web-headless".to_owned()));
    assert!(keys(&kept).contains(&"Service emojivoto/web-other".to_owned()));
    // Where the file cannot be read as a whole, everything of it stays.
    assert_eq!(keys(&read("a: [").keeping(&before.objects)), keys(&before.objects));
    // What is removed in good order goes.
    assert!(read("").keeping(&before.objects).is_empty());
}

#[test]
fn routes_of_services_are_read_and_what_they_say_in_vain_is_told() {
    let of = |kind: &str, parent: &str, annotation: &str| {
        let loaded = read(&format!(
            "apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: web, annotations: {{{annotation}}}}}
spec: {{parentRefs: [{parent}], rules: [{{backendRefs: [{{name: web, port: 80}}]}}]}}
"
        ));
        (loaded.objects.len(), loaded.problems.into_iter().map(|p| p.message).collect::<Vec<_>>())
    };
    let soon = "timeout.linkerd.io/request: soon";
    for kind in ["HTTPRoute", "GRPCRoute"] {
        for parent in [
            "{group: '', kind: Service, name: web}",
            "{group: policy.linkerd.io, kind: EgressNetwork, name: out, port: 80}",
        ] {
            assert_eq!(of(kind, parent, "timeout.linkerd.io/request: 1s"), (1, vec![]));
            let (objects, problems) = of(kind, parent, soon);
            assert_eq!((objects, problems.len()), (0, 1), "{problems:?}");
            assert!(problems[0].contains("\"soon\" cannot be read"), "{problems:?}");
        }
        let server = "{group: policy.linkerd.io, kind: Server, name: web}";
        assert_eq!(of(kind, server, soon), (1, vec![]), "no client looks at it");
        assert_eq!(of(kind, "{name: gateway}", "").0, 0);
    }
}

/// As by `kubectl apply -n`.
#[test]
fn what_names_no_namespace_is_in_the_one_that_is_given() {
    let text = "{apiVersion: v1, kind: List, items: [
{apiVersion: v1, kind: Namespace, metadata: {name: a}},
{apiVersion: v1, kind: ServiceAccount, metadata: {name: b}},
{apiVersion: v1, kind: ServiceAccount, metadata: {name: c, namespace: ''}},
{apiVersion: v1, kind: ServiceAccount, metadata: {name: d, namespace: own}},
{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: e}, spec: {template: {spec: {containers: [{name: e}]}}, selector: {}}}]}";
    let texts = [Text { name: "m.yaml".into(), text: text.to_owned() }];
    let of = |loaded: Loaded| loaded.objects.iter().map(|l| l.object.key().to_string()).collect::<Vec<_>>();
    let expected =
        ["Namespace a", "ServiceAccount shop/b", "ServiceAccount shop/c", "ServiceAccount own/d", "StatefulSet shop/e"];
    assert_eq!(of(load_to_ask("shop", &texts, &[])), expected);
    assert_eq!(of(load(&texts, &[]))[1], "ServiceAccount default/b");
    let wrong = load_to_ask("shop", &[Text { text: text.replace("name: b}", "name: B}"), ..texts[0].clone() }], &[]);
    assert_eq!(wrong.problems[0].object.as_ref().unwrap().to_string(), "ServiceAccount shop/B");
}

/// A cluster's API server drops them, and what they let in is denied there.
#[test]
fn fields_of_newer_versions_count_in_no_older_one() {
    let server = "podSelector: {matchLabels: {app: web, accessPolicy: a}}, port: 80";
    let rule = "backendRefs: [{name: web, port: 80}]";
    let route = |rule: &str| format!("parentRefs: [{{kind: Service, group: '', name: web}}], rules: [{{{rule}}}]");
    let open = format!("{server}, accessPolicy: all-unauthenticated");
    let timed = route(&format!("{rule}, timeouts: {{request: 1s}}"));
    let weighed = route("backendRefs: [{name: web, port: 80, weight: 1}]");
    let plain = route(rule);
    for (kind, spec, field, versions) in [
        ("Server", server, "", &["v1alpha1", "v1beta1", "v1beta2", "v1beta3"][..]),
        ("Server", open.as_str(), "spec.accessPolicy", &["v1beta3"][..]),
        ("HTTPRoute", plain.as_str(), "", &["v1alpha1", "v1beta1", "v1beta2", "v1beta3"][..]),
        ("HTTPRoute", timed.as_str(), "spec.rules[0].timeouts", &["v1beta3"][..]),
        ("HTTPRoute", weighed.as_str(), "spec.rules[0].backendRefs[0].weight", &["v1beta1", "v1beta2", "v1beta3"][..]),
    ] {
        for version in ["v1alpha1", "v1beta1", "v1beta2", "v1beta3"] {
            let of = format!("policy.linkerd.io/{version}");
            let loaded = read(&format!("apiVersion: {of}\nkind: {kind}\nmetadata: {{name: x}}\nspec: {{{spec}}}\n"));
            if versions.contains(&version) {
                assert_eq!((loaded.objects.len(), report(&loaded).lines().count()), (1, 1), "{}", report(&loaded));
                continue;
            }
            assert_eq!((loaded.objects.len(), loaded.problems.len()), (0, 1), "{kind} {version}: {}", report(&loaded));
            let Problem { line, field: named, message, remedy, .. } = &loaded.problems[0];
            assert_eq!((*line, named.as_str()), (4, field), "{kind} {version}");
            assert!(message.starts_with(&of), "{message}");
            assert_eq!(remedy, "use apiVersion: policy.linkerd.io/v1beta3", "{kind} {version}");
        }
    }
}

#[test]
fn what_is_refused_and_says_who_may_call_whom_is_known() {
    let of = |text: &str| {
        let loaded = read(text);
        assert!(!loaded.problems.is_empty(), "{text}");
        loaded.problems.iter().any(|problem| problem.access)
    };
    let route = |parent: &str| {
        let (api, spec) =
            ("gateway.networking.k8s.io/v1", format!("{{parentRefs: {parent}, rules: [{{nothing: 1}}]}}"));
        format!("apiVersion: {api}\nkind: HTTPRoute\nmetadata: {{name: x}}\nspec: {spec}\n")
    };
    for says in [
        "apiVersion: policy.linkerd.io/v1beta3\nkind: Server\nmetadata: {name: x}\n",
        "apiVersion: policy.linkerd.io/v9\nkind: AuthorizationPolicy\nmetadata: {name: x}\n",
        "apiVersion: policy.linkerd.oi/v1beta1\nkind: ServerAuthorization\n",
        "apiVersion: policy.linkerd.io/v1alpha1\nkind: MeshTLSAuthenthication\n",
        "kind: NetworkAuthentication\n",
        "{apiVersion: v1, kind: List, items: [{apiVersion: policy.linkerd.io/v1beta3, kind: Server, metadata: {name: x}}]}",
        &route("[{group: policy.linkerd.io, kind: Server, name: x}]"),
        &route("{group: policy.linkerd.io, kind: Server, name: x}"),
        "apiVersion: policy.linkerd.io/v1beta3\nkind: Server\nmetadata: {name: x\n",
        "{apiVersion: v1, kind: Namespace, metadata: {name: x, annotations: {config.linkerd.io/default-inbound-policy: denny}}}",
        "apiVersion: policy.linkerd.io/v1alpha1
kind: NetworkAuthentication
metadata: {name: x}
spec: {networks: [{cidr: 10.0.0.0/8}]}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: NetworkAuthentication
metadata: {name: x}
spec: {networks: [{cidr: 10.1.0.0/16}]}
",
    ] {
        assert!(of(says), "{says}");
    }
    for says_not in [
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n",
        "apiVersion: v1\nkind: Service\nmetadata: {name: x}\n",
        "{apiVersion: v1, kind: Namespace, metadata: {name: x, annotations: {linkerd.io/inject: maybe}}}",
        "apiVersion: policy.linkerd.io/v1alpha1\nkind: HTTPLocalRateLimitPolicy\nmetadata: {name: x}\n",
        &route("[{group: '', kind: Service, name: x}]"),
        "just a text",
        "a: [",
    ] {
        assert!(!of(says_not), "{says_not}");
    }
    assert!(load(&[], &["/no/such/file".into()]).problems[0].access, "whatever stands in it");
}

#[test]
fn folders_are_read_whole_in_order_and_files_once() {
    let dir = std::env::temp_dir().join(format!("weft-manifest-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    for folder in ["bc", "sub.yaml/deeper", ".git", ".old"] {
        std::fs::create_dir_all(dir.join(folder)).unwrap();
    }
    let namespace = |name: &str| format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n");
    for (file, name) in [
        ("b.yml", "b"),
        ("a.yaml", "a"),
        ("c.json", "c"),
        ("d.txt", "d"),
        (".e.yaml", "e"),
        ("bc/in.yaml", "bc-in"),
        ("sub.yaml/in.yaml", "sub-in"),
        ("sub.yaml/deeper/in.yaml", "sub-deeper-in"),
        (".git/in.yaml", "git-in"),
        (".old/in.yaml", "old-in"),
    ] {
        std::fs::write(dir.join(file), namespace(name)).unwrap();
    }
    std::fs::write(dir.join(".gitignore"), "target\n").unwrap();
    std::os::unix::fs::symlink(".", dir.join("circle.yaml")).unwrap();
    std::fs::write(dir.join("f.yaml"), [0xff, 0xfe]).unwrap();
    let paths = [dir.clone(), dir.join("a.yaml"), dir.join("none.yaml")];
    let loaded = load(&[], &paths);
    let names: Vec<_> = loaded.objects.iter().map(|l| l.object.key().name).collect();
    assert_eq!(names, ["a", "b", "bc-in", "c", "sub-deeper-in", "sub-in"]);
    let messages: Vec<_> = loaded.problems.iter().map(|p| p.message.as_str()).collect();
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(messages[0].contains("UTF-8") && messages[1].contains("No such file"), "{messages:?}");

    // What is left out is known, unless it is named by itself.
    assert_eq!(left_out(&paths), [".e.yaml", ".old"].map(|hidden| dir.join(hidden)));
    let paths_of_hidden = [paths.to_vec(), vec![dir.join(".old")]].concat();
    assert_eq!(left_out(&paths_of_hidden), [dir.join(".e.yaml")]);
    assert_eq!(load(&[], &paths_of_hidden).objects.len(), 7);

    // A change anywhere below is one, and so is a folder that comes or goes.
    let before = stamp(&paths);
    assert_eq!(before.folders(), ["", "bc", "sub.yaml", "sub.yaml/deeper"].map(|folder| dir.join(folder)));
    std::fs::write(dir.join("sub.yaml/deeper/in.yaml"), "# other\n").unwrap();
    let changed = stamp(&paths);
    assert_ne!(changed, before);
    std::fs::remove_dir_all(dir.join("sub.yaml/deeper")).unwrap();
    assert_ne!(stamp(&paths), changed);
    assert_eq!(load(&[], &paths).objects.len(), 5);

    // What a folder held that cannot be read now goes on.
    std::fs::rename(&dir, dir.with_extension("gone")).unwrap();
    assert_eq!(load(&[], &paths).keeping(&loaded.objects).len(), loaded.objects.len());
    std::fs::remove_dir_all(dir.with_extension("gone")).unwrap();
}

#[test]
fn links_to_folders_are_followed_and_what_they_lead_to_is_read_once() {
    let dir = std::env::temp_dir().join(format!("weft-links-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    let folders = ["shop/own", "beside/deeper", "mounted/..2026_11_28/policy"];
    folders.iter().for_each(|folder| std::fs::create_dir_all(dir.join(folder)).unwrap());
    for (file, name) in [
        ("shop/own/a.yaml", "a"),
        ("beside/b.yaml", "b"),
        ("beside/deeper/c.yaml", "c"),
        ("mounted/..2026_11_28/web.yaml", "web"),
        ("mounted/..2026_11_28/policy/server.yaml", "server"),
    ] {
        std::fs::write(dir.join(file), format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n"))
            .unwrap();
    }
    for (link, to) in [
        // Beside it, to what is there already, in circles, and nowhere.
        ("shop/beside", "../beside"),
        ("shop/again", "own"),
        ("shop/twice.yaml", "own/a.yaml"),
        ("beside/deeper/back", "../../shop"),
        ("beside/deeper/circle", "circle"),
        ("shop/gone", "nowhere"),
        // As Kubernetes mounts a ConfigMap.
        ("mounted/..data", "..2026_11_28"),
        ("mounted/web.yaml", "..data/web.yaml"),
        ("mounted/policy", "..data/policy"),
    ] {
        std::os::unix::fs::symlink(to, dir.join(link)).unwrap();
    }
    for (folder, files) in [
        ("shop", &["beside/b.yaml", "beside/deeper/c.yaml", "own/a.yaml"][..]),
        ("mounted", &["policy/server.yaml", "web.yaml"]),
    ] {
        let folder = [dir.join(folder)];
        let loaded = load(&[], &folder);
        assert_eq!(loaded.problems, []);
        let read: Vec<_> = loaded.objects.iter().map(|l| l.file.strip_prefix(&folder[0]).unwrap()).collect();
        assert_eq!(read, files.iter().map(Path::new).collect::<Vec<_>>());
        assert_eq!(texts(&folder[0]).unwrap().len(), files.len());
        assert_eq!(left_out(&folder), [] as [PathBuf; 0]);
    }
    // What is there by another name, too.
    let both = [dir.join("shop"), dir.join("beside/deeper/c.yaml"), dir.join("beside")];
    assert_eq!((load(&[], &both).objects.len(), load(&[], &both).problems), (3, vec![]));
    let before = stamp(&both);
    assert!(before.folders().contains(&dir.join("shop/beside/deeper")), "{before:?}");
    std::fs::write(dir.join("beside/deeper/d.yaml"), "# new\n").unwrap();
    assert_ne!(stamp(&both), before);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn folders_have_bounds() {
    let dir = std::env::temp_dir().join(format!("weft-folders-{}", std::process::id()));
    for (folders, says) in [
        (vec![["x"; 17].join("/")], "more than 16 folders in each other"),
        ((0..2_000).map(|i| i.to_string()).collect(), "more than 2000 folders"),
    ] {
        let _ = std::fs::remove_dir_all(&dir);
        folders.iter().for_each(|folder| std::fs::create_dir_all(dir.join(folder)).unwrap());
        let told = load(&[], std::slice::from_ref(&dir)).problems;
        assert!(told.len() == 1 && told[0].message.contains(says) && told[0].file == dir, "{told:?}");
        assert!(texts(&dir).is_err_and(|problem| problem.message.contains(says)));
        std::fs::remove_dir(dir.join(&folders[0])).unwrap();
        assert_eq!(load(&[], std::slice::from_ref(&dir)), Loaded::default(), "one less");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

/// Opening a pipe waits for its writer: whoever reads manifests must not.
#[test]
fn only_regular_files_are_read() {
    let dir = std::env::temp_dir().join(format!("weft-irregular-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
    nix::unistd::mkfifo(&dir.join("pipe.yaml"), mode).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.join("socket.yaml")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", dir.join("zero.yaml")).unwrap();
    std::fs::write(dir.join("target"), "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n").unwrap();
    std::os::unix::fs::symlink("target", dir.join("link.yaml")).unwrap();
    let before = stamp(std::slice::from_ref(&dir));
    let loaded = load(&[], &[dir.clone(), dir.join("pipe.yaml")]);
    let messages: Vec<_> = loaded.problems.iter().map(ToString::to_string).collect();
    assert_eq!(loaded.objects.len(), 1, "{messages:?}");
    for (file, kind) in [("pipe", "a named pipe"), ("socket", "a socket"), ("zero", "a device")] {
        let expected = format!("{file}.yaml: it is {kind}, not a regular file; ");
        assert!(messages.iter().any(|m| m.contains(&expected)), "{messages:?}");
    }
    assert_eq!(messages.len(), 3, "{messages:?}");

    // A change behind a link is one.
    assert_eq!(stamp(std::slice::from_ref(&dir)), before);
    std::fs::write(dir.join("target"), "# other\n").unwrap();
    assert_ne!(stamp(std::slice::from_ref(&dir)), before);
    std::fs::remove_dir_all(&dir).unwrap();
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}|[-a: \\n\\[\\]{}&*!|>'\"#]{0,200}") {
        let _ = read(&text);
    }

    /// Cutting lines out of a good manifest never panics, and never loses an object without a word.
    #[test]
    fn damaged_manifests_are_refused_by_name(cut in 0usize..82) {
        let text: String = GOOD.lines().enumerate().filter(|(i, _)| *i != cut).map(|(_, l)| format!("{l}\n")).collect();
        let loaded = read(&text);
        proptest::prop_assert!(loaded.objects.len() >= 5 || !loaded.problems.is_empty());
    }
}
