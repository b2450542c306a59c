//! `diagbot run`: one diagnostic with the caller's own kubeconfig and rights; no Slack, no server. What was captured becomes a
//! file in a folder, or with `--link` an object of the store.

mod progress;
mod report;
mod settings;

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use diagbot_api::{
    approval::Appeal,
    request_key::RequestKey,
    requester::Requester,
    run::{DiagnosticRun, OFFER, Origin, Phase, Selection},
    target::{self, TargetRef},
};
use diagbot_artifacts::{Destination, Folder, Store};
use diagbot_audit::AuditLog;
use diagbot_base::{
    clock::Clock,
    telemetry::{Chain, metrics::Metrics},
};
use diagbot_captures::{CapturesContext, SecretKey};
use diagbot_cluster::{Cluster, Clusters, lease::Leadership};
use diagbot_runs::{
    local::{self, AloneParts},
    request::RunRequest,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use self::{
    progress::Progress,
    report::{RunReport, Setting},
    settings::Settings,
};
use super::{complain, say};

/// Exit codes, as shown by `--help`.
const EXIT_CODES: &str = "Exit codes:
  0    captured, verified, and where standard output says
  1    not captured: the reason is on standard error
  2    nothing was begun: the request, a name in it, or the settings don't fit
  3    nothing was begun: your account may not do it
  4    captured in part
  5    its time was over
  130  stopped by you; standard error says whether that is proven";
/// Stopped by the caller: 128 and the number of SIGINT, as shells have it.
const STOPPED: u8 = 130;

/// One diagnostic, its target and its parameters.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(super) struct RunArguments {
    /// The diagnostic or runbook, by name or alias.
    diagnostic: String,
    /// What to look at, `[namespace/][kind/]name`, unless labels tell; then parameters.
    #[arg(value_name = "TARGET|KEY=VALUE")]
    words: Vec<String>,
    /// Labels of the pods to look at, instead of a target.
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// Every pod that fits.
    #[arg(long, conflicts_with = "max")]
    all: bool,
    /// At most so many of the pods that fit, the sickest.
    #[arg(long)]
    max: Option<u32>,
    /// Namespace; that of the kubeconfig's context unless given.
    #[arg(short, long)]
    namespace: Option<String>,
    /// Container; the pod's default container unless given.
    #[arg(short, long)]
    container: Option<String>,
    /// Context of the kubeconfig; its current one unless given.
    #[arg(long)]
    context: Option<String>,
    /// Folder that the file is put into. Nothing there is ever written over.
    #[arg(short, long, default_value = ".", conflicts_with = "link")]
    out: PathBuf,
    /// Bring it to the configured store, and print a link to it.
    #[arg(long)]
    link: bool,
    /// How the outcome is told on standard output.
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
    /// Only print what would be added to the pod.
    #[arg(long)]
    dry_run: bool,
    /// Go on where the target stands still meanwhile and its name was completed.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    settings: Setting,
}

/// How the outcome is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For eyes.
    Text,
    /// One JSON object.
    Json,
}

/// Runs it. What is wrong before anything is begun is told in the same form as what goes wrong later.
pub(super) async fn run(arguments: RunArguments) -> anyhow::Result<ExitCode> {
    match Box::pin(begin(&arguments)).await {
        Ok(code) => Ok(code),
        Err(error) => {
            let message = Chain(error.as_ref()).to_string();
            if arguments.output == Output::Json {
                say(&report::refused(&message));
            }
            complain(&format!("diagbot: {message}"));
            Ok(ExitCode::from(2))
        }
    }
}

async fn begin(arguments: &RunArguments) -> anyhow::Result<ExitCode> {
    let settings = Settings::load(&arguments.settings)?;
    let catalog = Arc::new(settings.catalog()?);
    let (cluster, namespace) = Cluster::of_caller(arguments.context.as_deref()).await?;
    let destination = destination(arguments, &settings).await?;
    let requester = local::caller(&cluster).await.map_err(|error| {
        let said = match error.status() {
            Some(status) => status.message.clone(),
            None => Chain(&error).to_string(),
        };
        anyhow::anyhow!(
            "the cluster `{}` does not answer you: {said}; `kubectl auth whoami` should work first",
            cluster.name
        )
    })?;
    let request = request(arguments, requester, namespace)?;
    let clock = Clock::default();
    let captures = CapturesContext {
        clusters: Clusters::alone(cluster.clone()),
        store: destination.clone(),
        audit_log: AuditLog::new("terminal", clock.clone()),
        leadership: Leadership::always(1),
        secret: Arc::new(SecretKey::try_from(rand::random::<[u8; 32]>().to_vec())?),
        config: settings.agent,
        metrics: Metrics::new(),
        clock: clock.clone(),
    };
    let parts = AloneParts {
        cluster,
        catalog,
        captures,
        clock,
    };
    if arguments.dry_run {
        return preview(parts, &request, arguments.output).await;
    }
    let Some(run) = Box::pin(capture(parts, &request)).await? else {
        complain("diagbot: left at once; what was added to the pod ends by itself, at the latest at its deadline");
        return Ok(ExitCode::from(STOPPED));
    };
    let report = RunReport::of(&run, &destination).await;
    match arguments.output {
        Output::Text => report.lines().iter().for_each(|line| say(line)),
        Output::Json => say(&report.json()),
    }
    report.remarks().iter().for_each(|line| complain(line));
    Ok(ExitCode::from(code(&run)))
}

/// Runs it until it is over; none where the caller did not wait for that. The first signal stops it in the pod, which is
/// waited for; the second one leaves.
async fn capture(parts: AloneParts, request: &RunRequest) -> anyhow::Result<Option<DiagnosticRun>> {
    let stop = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for signals")?;
    let mut told = async || {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let signals = async {
        told().await;
        stop.cancel();
        told().await;
    };
    let (tell, news) = watch::channel(DiagnosticRun::new(request.name().as_str(), request.spec()));
    let progress = Progress::new(news, stop.clone());
    let running = async {
        let ended = local::run(parts, request, &tell, &stop).await;
        drop(tell);
        ended
    };
    let shown = async { tokio::join!(running, progress.show()).0 };
    tokio::select! {
        ended = shown => Ok(Some(ended?)),
        () = signals => Ok(None),
    }
}

async fn preview(parts: AloneParts, request: &RunRequest, output: Output) -> anyhow::Result<ExitCode> {
    match local::preview(parts, request).await {
        Ok(shown) => {
            let shown = report::preview(&shown);
            match output {
                Output::Json => say(&serde_json::to_string_pretty(&shown)?),
                Output::Text => say(serde_saphyr::to_string(&shown)?.trim_end()),
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(run) => {
            let report = RunReport::without_artifacts(&run);
            if output == Output::Json {
                say(&report.json());
            }
            report.remarks().iter().for_each(|line| complain(line));
            Ok(ExitCode::from(code(&run)))
        }
    }
}

/// Where the artifact goes, tried before anything is begun.
async fn destination(arguments: &RunArguments, settings: &Settings) -> anyhow::Result<Destination> {
    if !arguments.link {
        let folder = Folder::open(&arguments.out);
        let folder = folder.context("name a folder that you may write to with --out")?;
        return Ok(Destination::Folder(folder));
    }
    let Some(store) = &settings.store else {
        bail!("--link takes a store: name a configuration file that has one with --config, or use --out");
    };
    Ok(Destination::Store(Store::connect(store, Clock::default()).await?))
}

fn request(arguments: &RunArguments, requester: Requester, namespace: String) -> anyhow::Result<RunRequest> {
    if arguments.diagnostic == OFFER {
        bail!("`{OFFER}` puts buttons into a channel; here, name the diagnostic itself");
    }
    let mut words = arguments.words.iter();
    let typed = match &arguments.selector {
        Some(selector) if target::is_selector(selector) => TargetRef {
            selector: Some(selector.clone()),
            ..TargetRef::default()
        },
        Some(selector) => bail!("`{selector}` is not a valid label selector; write key=value, joined by commas"),
        None => named(
            words
                .next()
                .context("name a target, as `namespace/name`, or labels with -l")?,
        )?,
    };
    if let (Some(typed), Some(given)) = (&typed.namespace, &arguments.namespace)
        && typed != given
    {
        bail!("the target names the namespace `{typed}` and -n the namespace `{given}`: leave one out");
    }
    let mut parameters = BTreeMap::new();
    for word in words {
        let Some((key, value)) = word.split_once('=') else {
            bail!("`{word}` is not a parameter; write key=value");
        };
        if parameters.insert(key.to_owned(), value.to_owned()).is_some() {
            bail!("the parameter `{key}` is given twice");
        }
    }
    let target = TargetRef {
        namespace: typed
            .namespace
            .or_else(|| arguments.namespace.clone())
            .or(Some(namespace)),
        container: arguments.container.clone(),
        ..typed
    };
    let request = RunRequest {
        key: RequestKey::Cli {
            id: format!("{:032x}", rand::random::<u128>()),
        },
        requester,
        origin: Origin::default(),
        diagnostic: arguments.diagnostic.clone(),
        parameters,
        target,
        targets: (arguments.all || arguments.max.is_some()).then_some(Selection { max: arguments.max }),
        // What would be added is seen best where the plan goes on until it would be.
        armed_until: None,
        dry_run: false,
        confirmed: arguments.yes || arguments.dry_run,
        appeal: Appeal::default(),
        received_at: Clock::default().now(),
    };
    request.check().map_err(|reason| {
        let explanation = reason.explain();
        anyhow::anyhow!("{} {}", explanation.message, explanation.remedy)
    })?;
    Ok(request)
}

fn named(word: &str) -> anyhow::Result<TargetRef> {
    let typed = target::parse(word)
        .with_context(|| format!("`{word}` is not a valid target; name a pod or workload as `namespace/name`"))?;
    if typed.cluster.is_some() {
        bail!("the cluster is chosen with --context, not with the target");
    }
    Ok(typed)
}

/// See [`EXIT_CODES`].
fn code(run: &DiagnosticRun) -> u8 {
    let reason = run.status.as_ref().and_then(|status| status.reason.as_ref());
    let forbidden = reason.is_some_and(|reason| matches!(reason.code.as_str(), "CallerForbidden" | "Forbidden"));
    match run.phase() {
        Phase::Succeeded => 0,
        Phase::PartlyFailed => 4,
        Phase::TimedOut => 5,
        Phase::Cancelled => STOPPED,
        _ if forbidden => 3,
        Phase::Denied => 3,
        Phase::Refused | Phase::Expired => 2,
        _ => 1,
    }
}
