//! The real kubectl against the sandbox's API server.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tidegate::clock::Clock;
use tidegate::sandbox::ApiServer;

const CRD: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: boats.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: boats, kind: Boat, shortNames: [bt]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas, labelSelectorPath: .status.selector}
    additionalPrinterColumns:
    - {name: Wanted, type: integer, jsonPath: .spec.replicas}
    - {name: Afloat, type: string, jsonPath: '.status.conditions[?(@.type=="Afloat")].status'}
    schema:
      openAPIV3Schema:
        type: object
        description: A boat.
        properties:
          spec:
            type: object
            description: What the boat should be.
            required: [hull]
            properties:
              replicas: {type: integer, minimum: 0, default: 1}
              hull: {type: string, enum: [wood, steel], description: What it is made of.}
              crew:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items:
                  type: object
                  required: [name]
                  properties: {name: {type: string}, rank: {type: string}}
          status:
            type: object
            x-kubernetes-preserve-unknown-fields: true
"#;

const BOAT: &str = r#"
apiVersion: example.com/v1
kind: Boat
metadata: {name: ark, labels: {size: big}}
spec: {hull: wood, crew: [{name: noah, rank: captain}]}
"#;

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: main, image: "web:1", ports: [{containerPort: 80}]}
      - {name: side, image: "side:1"}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_works() {
    let Ok(found) = Command::new("kubectl").args(["version", "--client"]).output() else {
        eprintln!("NOT RUN: kubectl is not on this machine");
        return;
    };
    assert!(found.status.success(), "kubectl does not run");
    let server = ApiServer::new(Clock::system(), 7);
    let serving = server.serve("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let folder = Folder::new();
    std::fs::write(folder.0.join("kubeconfig"), serving.kubeconfig("default")).unwrap();
    tokio::task::spawn_blocking(move || drive(&Kubectl { folder, server })).await.unwrap();
}

fn drive(kubectl: &Kubectl) {
    custom_resources(kubectl);
    applying(kubectl);
    editing(kubectl);
    watching(kubectl);
    deleting(kubectl);
}

fn custom_resources(kubectl: &Kubectl) {
    kubectl.says(&["apply", "-f", "-"], CRD, "customresourcedefinition.apiextensions.k8s.io/boats.example.com created");
    kubectl.says(
        &["wait", "--for=condition=Established", "crd/boats.example.com", "--timeout=5s"],
        "",
        "condition met",
    );
    let wrong = BOAT.replace("hull: wood", "hull: 5, sail: 1");
    kubectl.fails(&["apply", "-f", "-"], &wrong, "strict decoding error: unknown field \"spec.sail\"");
    let wrong = BOAT.replace("hull: wood", "hull: straw, replicas: many");
    kubectl.fails(&["apply", "-f", "-"], &wrong, "The Boat \"ark\" is invalid");
    kubectl.fails(&["apply", "-f", "-"], &wrong, "spec.replicas in body must be of type integer: \"string\"");
    kubectl.fails(&["apply", "-f", "-"], &wrong, "Unsupported value: \"straw\": supported values: \"wood\", \"steel\"");
    kubectl.says(&["apply", "-f", "-"], BOAT, "boat.example.com/ark created");
    kubectl.says(&["apply", "-f", "-"], BOAT, "boat.example.com/ark unchanged");
    kubectl.says(&["get", "bt"], "", "NAME   WANTED   AFLOAT");
    kubectl.says(&["get", "boats", "-l", "size in (big)", "-o", "name"], "", "boat.example.com/ark");
    kubectl.says(&["explain", "boat.spec.hull"], "", "What it is made of.");
    kubectl.says(&["scale", "boat/ark", "--replicas=3"], "", "scaled");
    kubectl.says(&["get", "boat", "ark", "-o", "jsonpath={.spec.replicas}/{.metadata.generation}"], "", "3/2");
    let status = r#"{"status":{"conditions":[{"type":"Afloat","status":"True"}]}}"#;
    kubectl.says(&["patch", "boat", "ark", "--subresource=status", "--type=merge", "-p", status], "", "patched");
    kubectl.says(&["wait", "--for=condition=Afloat", "boat/ark", "--timeout=5s"], "", "condition met");
    kubectl.says(&["get", "boat", "ark", "-o", "jsonpath={.metadata.generation}"], "", "2");
}

fn applying(kubectl: &Kubectl) {
    kubectl.says(&["apply", "-f", "-"], DEPLOYMENT, "deployment.apps/web created");
    kubectl.says(&["get", "deploy"], "", "web    0/2     0            0");
    // Client-side apply of a built-in kind is a strategic merge patch: the side container goes, by name.
    let (without_side, _) = DEPLOYMENT.split_once("      - {name: side").unwrap();
    kubectl.says(&["apply", "-f", "-"], without_side, "deployment.apps/web configured");
    kubectl.says(&["get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[*].name}"], "", "main");
    let applied = without_side.replace("replicas: 2", "replicas: 4");
    let conflict = "conflict with \"kubectl-client-side-apply\" using apps/v1: .spec.replicas";
    kubectl.fails(&["apply", "--server-side", "--field-manager=ci", "-f", "-"], &applied, conflict);
    let force = ["apply", "--server-side", "--field-manager=ci", "--force-conflicts", "-f", "-"];
    kubectl.says(&force, &applied, "deployment.apps/web serverside-applied");
    kubectl.says(&["get", "deploy", "web", "-o", "jsonpath={.spec.replicas}"], "", "4");
    kubectl.says(&["diff", "--server-side", "--field-manager=ci", "-f", "-"], &applied, "");
    kubectl.says(&["apply", "--dry-run=server", "-f", "-"], &DEPLOYMENT.replace("name: web}", "name: dry}"), "dry run");
    kubectl.fails(&["get", "deploy", "dry"], "", "deployments.apps \"dry\" not found");
}

fn editing(kubectl: &Kubectl) {
    kubectl.says(&["scale", "deploy/web", "--replicas=5"], "", "scaled");
    kubectl.says(&["set", "image", "deploy/web", "main=web:2"], "", "image updated");
    kubectl.says(&["label", "deploy", "web", "tier=front"], "", "labeled");
    kubectl.says(&["annotate", "deploy", "web", "note=x"], "", "annotated");
    let json = r#"[{"op":"replace","path":"/spec/replicas","value":1}]"#;
    kubectl.says(&["patch", "deploy", "web", "--type=json", "-p", json], "", "patched");
    let shown = "jsonpath={.spec.replicas} {.spec.template.spec.containers[0].image} {.metadata.labels.tier}";
    kubectl.says(&["get", "deploy", "web", "-o", shown], "", "1 web:2 front");
    let small = |kind: &str, name: &str, rest: &str| {
        format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: {name}}}\n{rest}")
    };
    let map = small("ConfigMap", "cm", "data: {a: b}");
    kubectl.says(&["create", "-f", "-"], &map, "configmap/cm created");
    kubectl.fails(&["create", "-f", "-"], &map, "configmaps \"cm\" already exists");
    kubectl.fails(&["-n", "nowhere", "create", "-f", "-"], &map, "namespaces \"nowhere\" not found");
    let service = small("Service", "web", "spec: {ports: [{port: 80}]}");
    kubectl.says(&["apply", "-f", "-"], &service, "service/web created");
    kubectl.says(&["get", "service", "web"], "", "80/TCP");
    kubectl.says(&["get", "service", "web", "-o", "jsonpath={.spec.ports[0].targetPort}"], "", "80");
    kubectl.says(&["create", "-f", "-"], &small("Namespace", "other", ""), "namespace/other created");
    kubectl.says(&["explain", "deployment.spec.replicas"], "", "Number of desired pods");
    kubectl.says(&["api-resources", "--api-group=example.com"], "", "boats");
    kubectl.says(&["version"], "", "Server Version: v1.34.3");
    kubectl.says(&["get", "all"], "", "deployment.apps/web");
}

fn watching(kubectl: &Kubectl) {
    let mut watch =
        kubectl.command(&["get", "boats", "-w", "--request-timeout=3s"]).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1));
    kubectl.says(&["scale", "boat/ark", "--replicas=9"], "", "scaled");
    std::thread::sleep(std::time::Duration::from_secs(1));
    watch.kill().unwrap();
    let output = watch.wait_with_output().unwrap();
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<Vec<&str>> = output.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 3, "{output}");
    assert_eq!((lines[1][..2].to_vec(), lines[2][..2].to_vec()), (vec!["ark", "3"], vec!["ark", "9"]));
}

fn deleting(kubectl: &Kubectl) {
    kubectl.says(&["delete", "configmap", "cm"], "", "configmap \"cm\" deleted");
    kubectl.says(&["delete", "deploy", "web", "--cascade=foreground"], "", "deployment.apps \"web\" deleted");
    kubectl.says(&["delete", "namespace", "other"], "", "namespace \"other\" deleted");
    kubectl.says(&["delete", "boats", "--all"], "", "boat.example.com \"ark\" deleted");
    kubectl.says(&["delete", "crd", "boats.example.com"], "", "deleted");
    kubectl.fails(&["get", "boats"], "", "the server could not find the requested resource");
    assert!(kubectl.server.manager("test").list("deployments.apps", "").is_empty());
}

struct Kubectl {
    folder: Folder,
    server: ApiServer,
}

impl Kubectl {
    fn says(&self, arguments: &[&str], input: &str, wanted: &str) {
        let (good, output) = self.run(arguments, input);
        assert!(good && output.contains(wanted), "kubectl {arguments:?} should say {wanted:?}, says:\n{output}");
    }

    fn fails(&self, arguments: &[&str], input: &str, wanted: &str) {
        let (good, output) = self.run(arguments, input);
        assert!(!good && output.contains(wanted), "kubectl {arguments:?} should fail with {wanted:?}, says:\n{output}");
    }

    fn run(&self, arguments: &[&str], input: &str) -> (bool, String) {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        let folder: &Path = &self.folder.0;
        command.args(arguments).env("HOME", folder).env("KUBECONFIG", folder.join("kubeconfig"));
        command
    }
}

/// A folder that goes when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("tidegate-kubectl-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
