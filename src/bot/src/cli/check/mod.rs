//! `diagbot check`: tries everything that `serve` needs, with the same code, and prints a table.

mod attempt;
mod fence;

use std::{process::ExitCode, time::Duration};

use clap::Args;
use diagbot_artifacts::{Outcome as Trial, Store};
use diagbot_base::{
    clock::Clock,
    telemetry::{Chain, metrics::Metrics},
};
use diagbot_cluster::{Cluster, Clusters};
use diagbot_runs::access::own::{self, Right};
use diagbot_slack::{api::SlackApi, scopes::SCOPES};

use super::{ConfigFile, say, serve::LEASE, wildcards};
use crate::config::{Config, Secrets};

/// Longest wait for one answer of a cluster.
const CALL: Duration = Duration::from_secs(10);

/// What is checked.
#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Namespace in whose pods the fence is tried, by dry run; may be given where the bot can't list the pods of all namespaces.
    #[arg(long)]
    fence_namespace: Option<String>,
}

/// What the bot must be allowed to do in its own namespace: verb, group, resource, subresource.
const HOME_RIGHTS: &[(&str, &str, &str, &str)] = &[
    ("create", "diagbot.dev", "diagnosticruns", ""),
    ("list", "diagbot.dev", "diagnosticruns", ""),
    ("watch", "diagbot.dev", "diagnosticruns", ""),
    ("patch", "diagbot.dev", "diagnosticruns", ""),
    ("delete", "diagbot.dev", "diagnosticruns", ""),
    ("update", "diagbot.dev", "diagnosticruns", "status"),
    ("create", "diagbot.dev", "diagnosticcaptures", ""),
    ("watch", "diagbot.dev", "diagnosticcaptures", ""),
    ("update", "diagbot.dev", "diagnosticcaptures", "status"),
    ("create", "diagbot.dev", "diagnosticpauses", ""),
    ("delete", "diagbot.dev", "diagnosticpauses", ""),
    ("watch", "diagbot.dev", "diagnosticpauses", ""),
    ("get", "", "namespaces", ""),
    ("create", "diagbot.dev", "diagnosticschedules", ""),
    ("watch", "diagbot.dev", "diagnosticschedules", ""),
    ("patch", "diagbot.dev", "diagnosticschedules", ""),
    ("delete", "diagbot.dev", "diagnosticschedules", ""),
    ("update", "diagbot.dev", "diagnosticschedules", "status"),
    ("create", "coordination.k8s.io", "leases", ""),
    ("get", "coordination.k8s.io", "leases", ""),
    ("update", "coordination.k8s.io", "leases", ""),
];

/// What the bot must be allowed to do in a target cluster as a whole.
const CLUSTER_RIGHTS: &[(&str, &str, &str, &str)] = &[("create", "authorization.k8s.io", "subjectaccessreviews", "")];

/// What the bot must be allowed to do in every namespace that takes part; here it is asked for all of them at once.
const TARGET_RIGHTS: &[(&str, &str, &str, &str)] = &[
    ("get", "", "pods", ""),
    ("list", "", "pods", ""),
    ("watch", "", "pods", ""),
    ("patch", "", "pods", "ephemeralcontainers"),
    ("get", "", "pods", "log"),
    ("get", "", "pods", "attach"),
    ("create", "", "pods", "attach"),
    ("get", "", "pods", "exec"),
    ("create", "", "pods", "exec"),
    ("get", "", "namespaces", ""),
    ("list", "", "events", ""),
    ("watch", "", "events", ""),
    ("create", "", "events", ""),
];

/// Prints the table; fails where the bot could not work.
pub(super) async fn run(arguments: &CheckArguments) -> anyhow::Result<ExitCode> {
    let path = &arguments.file.config;
    let mut table = Table::default();
    let Some(config) = table.add("configuration", Config::load(path), |_| path.display().to_string()) else {
        return Ok(table.finish());
    };
    let catalog = table.add("catalog", config.catalog(), |catalog| {
        format!(
            "{} diagnostics and {} runbooks in {}",
            catalog.iter().count(),
            catalog.runbooks().count(),
            config.catalog.folder.display()
        )
    });
    let secrets = table.add("secrets", Secrets::read(&config), |_| "all files are there".to_owned());
    if let Some(secrets) = secrets {
        check_slack(&config, &secrets, &mut table).await;
    }
    let clusters = Clusters::connect(&config.cluster, &config.clusters, &config.namespace).await;
    if let Some(clusters) = table.add("clusters", clusters, |c| {
        c.names().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }) {
        let at_home = Some(config.namespace.as_str());
        check_rights(clusters.home(), at_home, HOME_RIGHTS, Outcome::Fault, &mut table).await;
        for name in clusters.names() {
            if let Some(cluster) = clusters.get(name.as_str()) {
                check_rights(cluster, None, CLUSTER_RIGHTS, Outcome::Fault, &mut table).await;
                check_rights(cluster, None, TARGET_RIGHTS, Outcome::Less, &mut table).await;
                check_wildcards(cluster, &mut table).await;
                if let Some(catalog) = &catalog {
                    let place = arguments.fence_namespace.as_deref();
                    fence::check(&config, catalog, cluster, place, &mut table).await;
                }
            }
        }
    }
    if let Some(store) = table.add("store", Store::connect(&config.store, Clock::default()).await, |_| {
        config.store.endpoint.clone().unwrap_or_else(|| "AWS".to_owned())
    }) {
        for finding in store.probe().await.findings {
            let outcome = match finding.outcome {
                Trial::Works => Outcome::Ok,
                Trial::Degraded => Outcome::Less,
                Trial::Fails => Outcome::Fault,
            };
            table.row(&format!("store: {}", finding.name), outcome, &finding.words);
        }
    }
    Ok(table.finish())
}

async fn check_slack(config: &Config, secrets: &Secrets, table: &mut Table) {
    let api = SlackApi::new(&config.slack, &secrets.slack, Metrics::new());
    let Some(api) = table.add("slack", api, |_| config.slack.api_url.to_string()) else {
        return;
    };
    let identity = api.auth_test().await;
    table.add("slack: bot token", identity, |i| format!("{} in {}", i.user, i.team));
    let scopes = table.add("slack: scopes", api.granted_scopes().await, |s| {
        format!("{} granted", s.len())
    });
    for scope in scopes.iter().flat_map(|_| SCOPES) {
        let granted = scopes.iter().flatten().any(|name| name == scope.name);
        let outcome = match (granted, scope.required) {
            (true, _) => Outcome::Ok,
            (false, true) => Outcome::Fault,
            (false, false) => Outcome::Less,
        };
        table.row(&format!("slack: scope {}", scope.name), outcome, scope.reason);
    }
    table.add("slack: app token", api.open_connection().await, |_| {
        "Socket Mode opens".to_owned()
    });
}

/// A row for each subject whom a wildcard gives what should be given by name.
async fn check_wildcards(cluster: &Cluster, table: &mut Table) {
    let title = format!("{}: approve and break-glass by wildcard", cluster.name);
    match wildcards::subjects(cluster).await {
        Ok(found) if found.is_empty() => table.row(&title, Outcome::Ok, "nobody"),
        Ok(found) => found.iter().for_each(|words| table.row(&title, Outcome::Less, words)),
        Err(error) => table.row(
            &title,
            Outcome::Less,
            &format!("roles and bindings can't be listed with this account; run it as an administrator ({error})"),
        ),
    }
}

/// A row for each right; `missing` is what a missing one is worth.
async fn check_rights(
    cluster: &Cluster,
    namespace: Option<&str>,
    rights: &[(&'static str, &'static str, &'static str, &'static str)],
    missing: Outcome,
    table: &mut Table,
) {
    for (verb, group, resource, subresource) in rights {
        let right = Right {
            verb,
            group,
            resource,
            subresource,
        };
        // The role names the one lease; creating can't be narrowed to a name.
        let object = (*resource == "leases" && *verb != "create").then_some(LEASE);
        let name = format!("{}: {right}", cluster.name);
        match own::may(cluster, namespace, right, object).await {
            Ok(true) => table.row(&name, Outcome::Ok, "allowed"),
            Ok(false) if missing == Outcome::Less => {
                let words = "not in every namespace: each that takes part needs a binding of the role diagbot-target";
                table.row(&name, missing, words);
            }
            Ok(false) => table.row(&name, missing, "not allowed: apply the roles in deploy/base"),
            Err(error) => table.row(&name, Outcome::Fault, &Chain(&error).to_string()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Ok,
    Less,
    Fault,
}

/// The table, printed row by row, since some rows take seconds.
#[derive(Debug, Default)]
struct Table {
    faults: usize,
}

impl Table {
    fn row(&mut self, name: &str, outcome: Outcome, words: &str) {
        let mark = match outcome {
            Outcome::Ok => "ok   ",
            Outcome::Less => "less ",
            Outcome::Fault => "FAULT",
        };
        self.faults += usize::from(outcome == Outcome::Fault);
        say(&format!("{mark}  {name:<52}  {words}"));
    }

    /// A row of something that gives a value or an error; the value, if it came.
    fn add<T, E: std::error::Error + 'static>(
        &mut self,
        name: &str,
        result: Result<T, E>,
        words: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        match result {
            Ok(value) => {
                self.row(name, Outcome::Ok, &words(&value));
                Some(value)
            }
            Err(error) => {
                self.row(name, Outcome::Fault, &Chain(&error).to_string());
                None
            }
        }
    }

    fn finish(&self) -> ExitCode {
        say(&match self.faults {
            0 => "diagbot can work.".to_owned(),
            n => format!("{n} fault(s): see above."),
        });
        if self.faults == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}
