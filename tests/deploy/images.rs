//! The image, Kubernetes' manifests, and the binary alone in an empty root.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::trust::SecureSlack;
use super::{free_port, run, said, shipped, this_binary};
use crate::harness::{
    Click, Client, SECRET, Scratch, Server, read_approval, sample, write_approval,
};

#[test]
fn the_images_words_start_the_server_and_find_it_healthy() {
    let file = shipped("Dockerfile");
    let list = |instruction: &str| -> Vec<String> {
        let line = file.lines().find_map(|line| line.split_once(instruction));
        let (_, words) = line.unwrap_or_else(|| panic!("no {instruction}"));
        serde_json::from_str(words.trim()).unwrap_or_else(|error| panic!("{words}: {error}"))
    };
    let health = list("HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD");
    assert_eq!(
        (&*list("ENTRYPOINT")[0], &*health[0]),
        ("/runbook", "/runbook")
    );
    assert!(
        file.ends_with("\nCMD [\"webhook\"]\n"),
        "the harness starts the server so"
    );
    assert!(file.contains("\nFROM scratch\n") && file.contains("\nUSER 65532:65532\n"));
    let dir = Scratch::new();
    fs::write(dir.join("signing-secret"), SECRET).unwrap();
    fs::write(dir.join("bot-token"), "xoxb-1").unwrap();
    let place = dir.path().to_str().unwrap();
    let port = free_port().to_string();
    let (_, environment) = file.split_once("\nENV ").unwrap();
    let (environment, _) = environment.split_once("\nUSER").unwrap();
    let variables = environment
        .split_whitespace()
        .filter_map(|word| word.split_once('='));
    let variables: Vec<_> = variables
        .map(|(name, value)| {
            (
                name,
                value.replace("/data", place).replace("/secrets", place),
            )
        })
        .chain([("SLACK_WEBHOOK_PORT", port)])
        .chain([("SLACK_API_URL", "http://127.0.0.1:1/api/".to_owned())])
        .collect();
    let pending = dir.join("pending-approvals");
    let builder = Server::builder().bare().dir(&pending);
    let server = variables
        .iter()
        .fold(builder, |builder, (name, value)| builder.env(name, value))
        .start();
    write_approval(&pending, &sample("apr-1"));
    server.click(&Click::approve("apr-1"));
    let ask = || {
        let asking = Client::new(health[1..].iter().map(OsString::from));
        let asking = variables
            .iter()
            .fold(asking, |asking, (name, value)| asking.env(name, value));
        asking.finish().status
    };
    assert_eq!(ask(), Some(0));
    assert!(server.terminate().success());
    assert_eq!(ask(), Some(1));
}

/// Checks Kubernetes' manifests against its own schemas, and prints the container's words and variables.
const MANIFESTS: &str = r#"
import json, sys, yaml, kubernetes_validate
documents = list(yaml.safe_load_all(open(sys.argv[1])))
for document in documents:
    kubernetes_validate.validate(document, "1.31", strict=True)
pod = next(d for d in documents if d["kind"] == "Deployment")["spec"]["template"]
container = pod["spec"]["containers"][0]
mounts = {m["name"] for m in container["volumeMounts"]}
assert mounts == {v["name"] for v in pod["spec"]["volumes"]}, mounts
claims = {d["metadata"]["name"] for d in documents if d["kind"] == "PersistentVolumeClaim"}
assert claims == {v["persistentVolumeClaim"]["claimName"] for v in pod["spec"]["volumes"] if "persistentVolumeClaim" in v}
for document in documents:
    selector = document["spec"].get("selector", {})
    labels = selector.get("matchLabels", selector)
    assert labels.items() <= pod["metadata"]["labels"].items(), document["kind"]
print(json.dumps({"args": container["args"], "env": {e["name"]: e["value"] for e in container["env"]}}))
"#;

#[test]
fn kubernetes_schemas_take_the_manifests_and_the_server_their_words() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/scripts/deploy/kubernetes.yaml"
    );
    let checked = run("python3", &["-c", MANIFESTS, file]);
    assert!(checked.status.success(), "{}", said(&checked));
    let container: serde_json::Value = serde_json::from_slice(&checked.stdout).unwrap();
    let dir = Scratch::new();
    fs::write(dir.join("slack-signing-secret"), SECRET).unwrap();
    fs::write(dir.join("slack-bot-token"), "xoxb-1").unwrap();
    let place = dir.path().to_str().unwrap();
    let mut builder = Server::builder().bare().dir(dir.join("pending-approvals"));
    for (name, value) in container["env"].as_object().unwrap() {
        let value = value.as_str().unwrap();
        let value = value.replace("/data", place).replace("/secrets", place);
        builder = builder.env(name, value);
    }
    let args = container["args"].as_array().unwrap();
    let args = args.iter().map(|word| word.as_str().unwrap());
    let args = args
        .skip(1)
        .map(|word| if word == "3000" { "0" } else { word });
    let server = builder
        .args(args)
        .env("SLACK_API_URL", "http://127.0.0.1:1/api/")
        .start();
    write_approval(server.pending_dir(), &sample("apr-1"));
    server.click(&Click::approve("apr-1"));
    assert_eq!(server.get("/health").status, 200);
}

/// The binary under its own path in a root that holds nothing else. What a binary that is not static
/// needs is brought along.
fn empty_root(dir: &Scratch) -> PathBuf {
    let root = dir.join("root");
    let binary = this_binary();
    let needed = said(&run("ldd", &[binary.to_str().unwrap()]));
    let libraries = needed
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    for file in libraries
        .map(|word| PathBuf::from(word.trim_end_matches(':')))
        .chain([binary])
    {
        let inside = root.join(file.strip_prefix("/").unwrap());
        fs::create_dir_all(inside.parent().unwrap()).unwrap();
        fs::copy(&file, inside).unwrap();
    }
    root
}

#[test]
fn alone_in_an_empty_root_it_decides_a_click_and_speaks_tls_to_slack() {
    let slack = SecureSlack::start();
    let dir = Scratch::new();
    let root = empty_root(&dir);
    // The one path is the same directory inside and outside.
    let place = dir.join("place");
    let inside = root.join(place.strip_prefix("/").unwrap());
    fs::create_dir_all(&inside).unwrap();
    symlink(&inside, &place).unwrap();
    fs::copy(slack.root(), inside.join("root.pem")).unwrap();
    // Names are resolved, if only by this file.
    fs::create_dir(root.join("etc")).unwrap();
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n").unwrap();
    let server = slack
        .serve(Server::builder())
        .wrapper([
            "unshare",
            "--map-root-user",
            "--root",
            root.to_str().unwrap(),
        ])
        .dir(place.join("pending"))
        .env("TMPDIR", &place)
        .env("SSL_CERT_FILE", place.join("root.pem"))
        .start();
    slack.is_told_of(&server, "apr-1");
    assert_eq!(
        read_approval(place.join("pending"), "apr-1")["status"],
        "approved"
    );
    assert!(server.terminate().success());
}
