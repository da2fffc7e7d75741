//! What people ask of a mesh on one machine: whether it is in order, which version it is, who its pods are.

use crate::harness::{Mesh, SERVER, User, deployment, users, weft};

fn asked(user: User, mesh: &Mesh, words: &[&str]) -> (bool, String, String) {
    let output = weft(user, &mesh.state).args(words).current_dir("/").output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_mesh_is_checked_and_its_pods_show_who_they_are() {
    for user in users() {
        let probe = "readinessProbe: {httpGet: {path: /, port: 8000}, periodSeconds: 1}";
        let manifests = deployment("web", 1, "", "[python3, DIR/server.py]", probe)
            + &deployment("outside", 1, "linkerd.io/inject: disabled", "[sleep, '1000']", "");
        let mut mesh = Mesh::up(user, &manifests, &[("server.py", SERVER)], &[]);
        mesh.ready(&["web", "outside"]);

        let (ok, out, err) = asked(user, &mesh, &["check", "--proxy"]);
        assert!(ok && out.ends_with("Status check results are √\n") && err.is_empty(), "{user:?}: {out}{err}");
        assert!(out.contains("√ the pods are ready") && !out.contains('‼'), "{user:?}: {out}");
        let (ok, out, _) = asked(user, &mesh, &["check", "--expected-version=v0"]);
        assert!(ok && out.contains("‼ mesh and cli versions match"), "{user:?}: {out}");

        let version = env!("CARGO_PKG_VERSION");
        let (ok, out, _) = asked(user, &mesh, &["version", "--proxy"]);
        let expected =
            format!("Client version: {version}\nServer version: {version}\nProxy versions:\n\t{version} (1 pods)\n");
        assert!(ok && out == expected, "{user:?}: {out}");

        let (web, outside) = (mesh.pods("web").remove(0).name, mesh.pods("outside").remove(0).name);
        let (ok, out, err) = asked(user, &mesh, &["identity", &web]);
        assert!(ok && out.starts_with(&format!("POD {web} (1 of 1)\n\nCertificate:\n")), "{user:?}: {out}{err}");
        let name = "DNS:web.shop.serviceaccount.identity.linkerd.cluster.local";
        assert_eq!(out.matches("Certificate:").count(), 1, "{user:?}: no CA's: {out}");
        assert!(out.contains(name), "{user:?}: {out}");
        let (ok, out, err) = asked(user, &mesh, &["identity", &outside, &web, "nobody"]);
        assert!(!ok && out.contains(&format!("POD {web} (2 of 3)")), "{user:?}: {out}{err}");
        assert!(err.contains(&format!("pod {outside} (1 of 3): it has no proxy")), "{user:?}: {err}");
        assert!(err.contains("pod nobody (3 of 3): there is no such pod"), "{user:?}: {err}");
        let (ok, _, err) = asked(user, &mesh, &["identity", "-l", "app=web"]);
        assert!(!ok && err.contains("--selector: "), "{user:?}: {err}");
    }
}
