//! The fence on a real API server: what the bot's own token can't do, whoever holds it, and what it still can.
//!
//! Every attempt is printed with the server's answer.

use std::path::Path;

use anyhow::{Context as _, ensure};
use diagbot_api::run::{DiagnosticRun, Phase};
use diagbot_sandbox::wait::until;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

use crate::{
    installation::{Installation, RUN_DEADLINE, agent_image, repository},
    kubectl::{apply, kubectl, ready, run},
    workload::Workload,
};

/// Diagnostics beside the shipped ones; with their parameters as large as catalogs get.
const GENERATED: usize = 40;
const POD: &str = "checkout";
const KUBE_SYSTEM: &str = "kube-system";
/// A pod of ours in there.
const KEEPER: &str = "diagbot-e2e-keeper";
const ENABLED: &str = "diagbot.dev/enabled=true";

/// A change of a container that the fence would admit.
type Attempt = (&'static str, fn(&mut Value), &'static str);

/// What is tried with a container, and words of the answer.
const CONTAINERS: [Attempt; 23] = [
    (
        "a shell",
        |c| c["args"] = json!(["sh", "-c", "id", "", "", ""]),
        "not in the catalog",
    ),
    (
        "gdb with free arguments",
        |c| {
            let step = "--step=jstack;process=jvm;output=text;limit=67108864;deadline=60;\
                        argv=[\"gdb\",\"-p\",\"1\",\"-ex\",\"call (int)system(\\\"id\\\")\"]";
            let last = c["args"].as_array().map_or(0, Vec::len) - 1;
            c["args"][last] = json!(step);
        },
        "an argument is not in the catalog",
    ),
    (
        "a further argument",
        |c| c["args"].as_array_mut().unwrap().push(json!("--step=anything")),
        "an argument is not in the catalog",
    ),
    (
        "arguments in another order",
        |c| c["args"].as_array_mut().unwrap().swap(3, 4),
        "each once and in this order",
    ),
    (
        "an argument twice",
        |c| {
            let again = c["args"][4].clone();
            c["args"].as_array_mut().unwrap().insert(5, again);
        },
        "each once and in this order",
    ),
    (
        "a catalogued step with more behind it",
        |c| {
            let last = c["args"].as_array().map_or(0, Vec::len) - 1;
            let longer = format!("{}x", c["args"][last].as_str().unwrap_or_default());
            c["args"][last] = json!(longer);
        },
        "an argument is not in the catalog",
    ),
    (
        "the group 0 beside a target of another",
        |c| c["securityContext"]["runAsGroup"] = json!(0),
        "the group 0 is allowed only beside",
    ),
    (
        "a Secret by envFrom",
        |c| c["envFrom"] = json!([{ "secretRef": { "name": "diagbot" } }]),
        "no command, environment, mounts",
    ),
    (
        "a Secret by env",
        |c| {
            c["env"] =
                json!([{ "name": "X", "valueFrom": { "secretKeyRef": { "name": "diagbot", "key": "nonce-key" } } }]);
        },
        "no command, environment, mounts",
    ),
    (
        "a token volume mount",
        |c| c["volumeMounts"] = json!([{ "name": "token", "mountPath": "/var/run/secrets" }]),
        "no command, environment, mounts",
    ),
    (
        "a command",
        |c| c["command"] = json!(["/bin/sh"]),
        "no command, environment, mounts",
    ),
    (
        "another image",
        |c| c["image"] = json!("localhost/busybox:1"),
        "the image is not in the catalog",
    ),
    (
        "a capability",
        |c| c["securityContext"]["capabilities"]["add"] = json!(["SYS_PTRACE"]),
        "a capability is neither in the catalog",
    ),
    (
        "privileged",
        |c| c["securityContext"] = json!({ "privileged": true }),
        "privileged containers",
    ),
    (
        "root beside a target that is not",
        |c| c["securityContext"]["runAsUser"] = json!(0),
        "root, or a way to it, is allowed only beside",
    ),
    (
        "escalation beside a target that is not root",
        |c| c["securityContext"]["allowPrivilegeEscalation"] = json!(true),
        "root, or a way to it, is allowed only beside",
    ),
    (
        "without AppArmor",
        |c| c["securityContext"]["appArmorProfile"] = json!({ "type": "Unconfined" }),
        "AppArmor and seccomp settings are not allowed",
    ),
    (
        "the pod's seccomp profile, whatever it is",
        |c| {
            c["securityContext"].as_object_mut().unwrap().remove("seccompProfile");
        },
        "AppArmor and seccomp settings are not allowed",
    ),
    (
        "a file of the kubelet over a program of the image",
        |c| c["terminationMessagePath"] = json!("/diagbot-agent"),
        "its termination message where it always is",
    ),
    ("a terminal", |c| c["tty"] = json!(true), "has no terminal"),
    ("another name", |c| c["name"] = json!("debugger"), "is called diag-"),
    (
        "a name that begins like ours",
        |c| c["name"] = json!("diag-0123456789abcdef-0-1-x"),
        "is called diag-",
    ),
    (
        "no target",
        |c| {
            c.as_object_mut().unwrap().remove("targetContainerName");
        },
        "names its target",
    ),
];

/// A pod of root containers.
const ROOTED: &str = "rooted";
/// A pod that shares the processes of its node.
const HOSTED: &str = "hosted";

/// Behind the policies that are rendered from a catalog of more than 40 diagnostics the bot works as before, and its token
/// can do nothing that the catalog does not hold. `home` is the bot's namespace.
pub(crate) async fn stands(installation: &Installation, home: &str) -> anyhow::Result<()> {
    let catalog = installation.folder.path().join("large");
    let count = grow(&catalog).await?;
    raise(&catalog, &agent_image()?).await?;
    let token = installation.folder.path().join("stolen-token");
    std::fs::write(&token, installation.bot_kubeconfig().await?.to_string()).context("write the kubeconfig")?;
    let token = token.to_string_lossy().into_owned();
    let stolen = Stolen {
        client: client_of(&token).await?,
        kubeconfig: token,
        namespace: installation.target.clone(),
    };
    // Policies take effect some time after they are written.
    until(RUN_DEADLINE, "the fence stands", async || {
        let refused = stolen.kubectl(&["exec", POD, "-c", "app", "--", "id"]).await.err();
        Ok(refused.filter(|error| error.to_string().contains("its own containers only")))
    })
    .await?;
    eprintln!("  the fence stands with {count} diagnostics");

    // With the fence up: an admitted container to start from.
    installation
        .ask("heap-histogram", POD)
        .await?
        .must_be(Phase::Succeeded)?;
    let (good, own) = stolen.admitted().await?;
    stolen.refused_containers(&good).await?;
    apply(&rooted().manifest(&stolen.namespace)).await?;
    ready(&stolen.namespace, ROOTED).await?;
    stolen.refused_beside_root(&good).await?;
    stolen.refused_of_the_node(&good).await?;
    stolen.refused_streams(&own).await?;
    stolen.refused_namespaces(home, &good).await?;
    stolen.refused_records(installation, home).await?;
    for diagnostic in ["jstack", "process", "pod-report"] {
        let outcome = installation.ask(diagnostic, POD).await?;
        ensure!(
            outcome.phase() == Phase::Succeeded,
            "behind the fence the run ended as {:?}: {}",
            outcome.phase(),
            outcome.text()
        );
    }
    Ok(())
}

/// The shipped catalog and generated diagnostics; returns how many.
async fn grow(folder: &Path) -> anyhow::Result<usize> {
    let shipped = repository().join("commands");
    run(
        "cp",
        &["-r", &shipped.to_string_lossy(), &folder.to_string_lossy()],
        None,
    )
    .await?;
    let digest = "0".repeat(64);
    for n in 0..GENERATED {
        let text = format!(
            "name: generated-{n}\nsummary: Generated {n}\nruntime: any\nmethod: ephemeral\n\
             image: localhost/tools@sha256:{digest}\n\
             argv: [/usr/bin/tool-{n}, --interval, '{{interval}}', --filter, '{{filter}}', --mode, '{{mode}}']\n\
             parameters:\n  interval: {{ kind: integer, pattern: '^[0-9]{{1,4}}$', default: '10', rule: a number }}\n\
             \x20 filter: {{ kind: text, pattern: '^[a-z0-9.-]{{1,64}}$', default: all, rule: a word }}\n\
             \x20 mode: {{ kind: choice, pattern: '^(?:fast|slow|deep)$', default: fast, rule: a mode }}\n\
             process: main\nidentity: target\ndeadline: 60s\nlimit: 64MiB\n\
             artifact: {{ name: out-{n}.txt, mediaType: text/plain, output: text }}\n\
             sensitivity: normal\nimpact: none\n"
        );
        std::fs::write(folder.join(format!("generated-{n}.yaml")), text).context("write a diagnostic")?;
    }
    let files = std::fs::read_dir(folder).context("list the catalog")?;
    Ok(files
        .filter_map(Result::ok)
        .filter(|file| file.path().extension().is_some_and(|e| e == "yaml"))
        .count())
}

/// Root that gave everything up, an image that names another user, a container that only begins to be called like ours, and
/// a sidecar that is root with what the runtime gives.
fn rooted() -> Workload {
    let busybox = |name: &str| {
        json!({
            "name": name, "image": "localhost/busybox:1", "imagePullPolicy": "IfNotPresent",
            "command": ["sleep", "3600"], "stdin": true, "securityContext": { "runAsUser": 0 },
        })
    };
    let mut sidecar = busybox("mesh");
    sidecar["restartPolicy"] = json!("Always");
    // Nothing but the kubelet's report says that it is not root.
    let proxy = json!({
        "name": "proxy", "image": "localhost/ledger:1", "imagePullPolicy": "IfNotPresent", "command": ["/ledger"],
        "restartPolicy": "Always",
    });
    let ledger = json!({
        "name": "ledger", "image": "localhost/ledger:1", "imagePullPolicy": "IfNotPresent", "command": ["/ledger"],
    });
    Workload::script(ROOTED, "sleep 3600")
        .user(0)
        .security(&json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } }))
        .container(ledger)
        .container(busybox("diag-proxy"))
        .spec(&json!({ "initContainers": [sidecar, proxy] }))
}

/// Applies the fence that a catalog renders.
pub(crate) async fn raise(catalog: &Path, image: &str) -> anyhow::Result<()> {
    let catalog = catalog.to_string_lossy();
    let arguments = ["bot", "policy", "render", "--catalog", &catalog, "--agent-image", image];
    let policies = run(env!("CARGO_BIN_EXE_sandbox-under-test"), &arguments, None).await?;
    apply(&policies).await.context("the API server takes the policies")
}

pub(crate) async fn client_of(kubeconfig: &str) -> anyhow::Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Whoever holds the bot's token.
struct Stolen {
    client: Client,
    kubeconfig: String,
    namespace: String,
}

impl Stolen {
    async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let own = ["--kubeconfig", &self.kubeconfig, "-n", &self.namespace];
        kubectl(&[&own[..], arguments].concat(), None).await
    }

    async fn add(&self, namespace: &str, pod: &str, container: &Value) -> Result<Pod, kube::Error> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let patch = Patch::Strategic(json!({ "spec": { "ephemeralContainers": [container] } }));
        // What is admitted here is only asked for, not done.
        let params = PatchParams {
            dry_run: true,
            ..PatchParams::default()
        };
        pods.patch_ephemeral_containers(pod, &params, &patch).await
    }

    /// A container as the bot itself adds it, under another name, which the fence admits; and the name of the bot's own.
    async fn admitted(&self) -> anyhow::Result<(Value, String)> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let spec = pods.get(POD).await?.spec.unwrap_or_default();
        let own = spec
            .ephemeral_containers
            .unwrap_or_default()
            .pop()
            .context("a capture was taken")?;
        let name = own.name.clone();
        let mut container = serde_json::to_value(own)?;
        container["name"] = json!("diag-0123456789abcdef-0-1");
        self.add(&self.namespace, POD, &container)
            .await
            .context("what the catalog holds is admitted")?;
        eprintln!("  admitted: {}", container["args"]);
        Ok((container, name))
    }

    /// A volume of the pod: unless it says otherwise, its token.
    async fn volume(&self) -> anyhow::Result<String> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let spec = pods.get(POD).await?.spec.unwrap_or_default();
        let volume = spec.volumes.unwrap_or_default().pop().context("the pod has a volume")?;
        Ok(volume.name)
    }

    async fn refused_containers(&self, good: &Value) -> anyhow::Result<()> {
        for (what, change, words) in CONTAINERS {
            let mut container = good.clone();
            change(&mut container);
            if container.get("volumeMounts").is_some() {
                container["volumeMounts"][0]["name"] = json!(self.volume().await?);
            }
            refused(what, self.add(&self.namespace, POD, &container).await, words)?;
        }
        Ok(())
    }

    /// Root is no more than the target's root.
    async fn refused_beside_root(&self, good: &Value) -> anyhow::Result<()> {
        let root = |target: &str, more: &Value| {
            let mut container = good.clone();
            container["targetContainerName"] = json!(target);
            container["securityContext"] = more.clone();
            container["securityContext"]["runAsUser"] = json!(0);
            container["securityContext"]["seccompProfile"] = json!({ "type": "RuntimeDefault" });
            container
        };
        let nothing = json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } });
        for (target, context) in [("app", &nothing), ("mesh", &json!({}))] {
            let added = self.add(&self.namespace, ROOTED, &root(target, context)).await;
            added.with_context(|| format!("root as the target `{target}` is admitted"))?;
        }
        let gives_up = "gives up every capability that the target does";
        let attempts = [
            (
                "capabilities that the root target gave up",
                "app",
                json!({ "allowPrivilegeEscalation": false }),
                gives_up,
            ),
            (
                "escalation that the root target gave up",
                "app",
                json!({ "capabilities": { "drop": ["ALL"] } }),
                gives_up,
            ),
            (
                "root beside an image that names another user",
                "ledger",
                nothing.clone(),
                "root, or a way to it, is allowed only beside",
            ),
            (
                "root beside a sidecar whose image names another user",
                "proxy",
                nothing.clone(),
                "root, or a way to it, is allowed only beside",
            ),
        ];
        for (what, target, context, words) in attempts {
            let answer = self.add(&self.namespace, ROOTED, &root(target, &context)).await;
            refused(what, answer, words)?;
        }
        Ok(())
    }

    /// Processes of other pods are in reach there, whatever their namespaces say.
    async fn refused_of_the_node(&self, good: &Value) -> anyhow::Result<()> {
        let hosted = Workload::ledger(HOSTED).user(1000).spec(&json!({ "hostPID": true }));
        apply(&hosted.manifest(&self.namespace)).await?;
        ready(&self.namespace, HOSTED).await?;
        refused(
            "a container in a pod with hostPID",
            self.add(&self.namespace, HOSTED, good).await,
            "shares the processes of its node (hostPID)",
        )
    }

    async fn refused_streams(&self, own: &str) -> anyhow::Result<()> {
        let only_own = "its own containers only";
        let attempts: [(&str, &[&str], &str); 5] = [
            (
                "attach to a container that is called nearly like ours",
                &["attach", ROOTED, "-c", "diag-proxy"],
                only_own,
            ),
            (
                "exec into the application",
                &["exec", POD, "-c", "app", "--", "id"],
                only_own,
            ),
            ("attach to the application", &["attach", POD, "-c", "app"], only_own),
            (
                "a shell in our own container",
                &["exec", POD, "-c", own, "--", "/bin/sh"],
                "nothing but its agent's cat",
            ),
            (
                "the agent with other arguments",
                &[
                    "exec",
                    POD,
                    "-c",
                    own,
                    "--",
                    "/diagbot-agent",
                    "cat",
                    "--step=0",
                    "--from=x",
                ],
                "nothing but its agent's cat",
            ),
        ];
        for (what, arguments, words) in attempts {
            refused(what, self.kubectl(arguments).await, words)?;
        }
        Ok(())
    }

    async fn refused_namespaces(&self, home: &str, good: &Value) -> anyhow::Result<()> {
        let bots = kubectl(
            &[
                "-n",
                home,
                "get",
                "pods",
                "-l",
                "app.kubernetes.io/component=bot",
                "-o",
                "name",
            ],
            None,
        )
        .await?;
        let bot = bots
            .lines()
            .next()
            .context("the bot has a pod")?
            .trim_start_matches("pod/")
            .to_owned();
        // Nobody's label opens these two.
        kubectl(&["label", "namespace", KUBE_SYSTEM, home, ENABLED], None).await?;
        let keeper = Workload::ledger(KEEPER);
        apply(&keeper.manifest(KUBE_SYSTEM)).await?;
        ready(KUBE_SYSTEM, KEEPER).await?;
        let never = "captures are never taken in kube-system or in diagbot's own namespace";
        for (what, namespace, pod) in [
            ("a container in kube-system", KUBE_SYSTEM, KEEPER),
            ("a container beside the bot itself", home, bot.as_str()),
        ] {
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
            let spec = pods.get(pod).await?.spec.unwrap_or_default();
            let mut container = good.clone();
            container["targetContainerName"] = json!(spec.containers[0].name);
            refused(what, self.add(namespace, pod, &container).await, never)?;
        }
        let exec = [
            "--kubeconfig",
            &self.kubeconfig,
            "-n",
            KUBE_SYSTEM,
            "exec",
            KEEPER,
            "--",
            "/ledger",
        ];
        refused(
            "exec in kube-system",
            kubectl(&exec, None).await,
            "its own containers only",
        )?;
        for namespace in [KUBE_SYSTEM, home] {
            let label = ["label", "namespace", namespace, "diagbot.dev/enabled-"];
            kubectl(&label, None).await?;
        }
        let gone = ["-n", KUBE_SYSTEM, "delete", "pod", KEEPER, "--wait=false"];
        kubectl(&gone, None).await?;

        let label = |value: &'static str| ["label", "namespace", self.namespace.as_str(), value, "--overwrite"];
        kubectl(&label("diagbot.dev/enabled-"), None).await?;
        let answer = until(RUN_DEADLINE, "a namespace without the label is refused", async || {
            Ok(self.add(&self.namespace, POD, good).await.err())
        })
        .await;
        kubectl(&label("diagbot.dev/enabled=true"), None).await?;
        let answer = Err::<(), _>(answer?);
        refused(
            "a namespace without diagbot.dev/enabled=true",
            answer,
            "does not carry the label",
        )?;
        until(RUN_DEADLINE, "the label counts again", async || {
            Ok(self.add(&self.namespace, POD, good).await.ok())
        })
        .await?;
        Ok(())
    }

    async fn refused_records(&self, installation: &Installation, home: &str) -> anyhow::Result<()> {
        let runs: Api<DiagnosticRun> = Api::namespaced(self.client.clone(), home);
        let recorded = runs.list(&kube::api::ListParams::default()).await?.items;
        let run = recorded.first().context("there is a run")?;
        let name = run.metadata.name.clone().unwrap_or_default();
        let edit = Patch::Merge(json!({ "spec": { "requester": { "team": "T0", "user": "U0" } } }));
        let edited = runs.patch(&name, &PatchParams::default(), &edit).await;
        refused("an edited run", edited, "never changes")?;

        let mut forged = run.clone();
        forged.metadata = kube::api::ObjectMeta {
            name: Some("d-aaaaaaaaaaaaaaaa".to_owned()),
            ..kube::api::ObjectMeta::default()
        };
        let admin: Api<DiagnosticRun> = Api::namespaced(installation.client.clone(), home);
        let made = admin.create(&kube::api::PostParams::default(), &forged).await;
        refused(
            "a run that the administrator made by hand",
            made,
            "only the bot writes runs",
        )?;
        let said = Patch::Merge(json!({ "metadata": { "annotations": { "diagbot.dev/verdict": "{}" } } }));
        let said = admin.patch(&name, &PatchParams::default(), &said).await;
        refused("a consent that was written by hand", said, "only the bot writes runs")?;
        // Nothing is left of a run that is deleted together with its captures, which takes the garbage collector's hand.
        let delete = [
            "-n",
            home,
            "delete",
            "diagnosticrun",
            &name,
            "--cascade=foreground",
            "--timeout=60s",
        ];
        kubectl(&delete, None).await?;
        Ok(())
    }
}

/// Prints an attempt with the answer, and fails unless the server refused it so.
fn refused<T>(what: &str, answer: Result<T, impl Into<anyhow::Error>>, words: &str) -> anyhow::Result<()> {
    let error = answer.err().map(Into::into);
    let said = error.map(|error| format!("{error:#}")).unwrap_or_default();
    eprintln!(
        "  refused: {what}\n    {}",
        said.lines().collect::<Vec<_>>().join("\n    ")
    );
    ensure!(!said.is_empty(), "{what} was admitted");
    ensure!(said.contains(words), "{what} was refused for another reason: {said}");
    Ok(())
}
