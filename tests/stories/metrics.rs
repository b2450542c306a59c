//! What a Prometheus finds on the replicas: every number follows what happened.

use std::{collections::BTreeMap, time::Duration};

use diagbot_api::run::Phase;
use diagbot_sandbox::{installation::Plan, people::fetch, wait};

use crate::product::Product;

const SOON: Duration = Duration::from_secs(40);

/// All samples of one replica, by name and labels as they stand.
async fn samples(address: &str) -> anyhow::Result<BTreeMap<String, f64>> {
    let (_, body) = fetch(&format!("{address}/metrics")).await?;
    let text = String::from_utf8(body.to_vec())?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap_or((line, ""));
            Ok((name.to_owned(), value.parse()?))
        })
        .collect()
}

/// The sum over both replicas; none where neither has the metric.
pub(crate) async fn total(product: &Product, name: &str) -> anyhow::Result<Option<f64>> {
    let mut sum = None;
    for bot in &product.installation.addresses().bots {
        if let Some(sample) = samples(bot).await?.get(name) {
            sum = Some(sum.unwrap_or_default() + sample);
        }
    }
    Ok(sum)
}

async fn until_total(product: &Product, name: &str, wanted: f64) {
    wait::until(SOON, name, || async {
        let sum = total(product, name).await?;
        Ok(sum.filter(|sum: &f64| (sum - wanted).abs() < 0.5).map(|_| ()))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_of_two_replicas_tell_who_leads_and_what_ended_how() {
    let plan = Plan {
        replicas: 2,
        ..Plan::default()
    };
    let product = Product::with(plan).await;
    until_total(&product, "diagbot_leading", 1.0).await;
    let told = product.runs("process ledger").await;
    assert_eq!(told.run.phase(), Phase::Succeeded, "{}", told.text());
    let refused = product.runs("process nowhere").await;
    assert_eq!(refused.run.phase(), Phase::Refused, "{}", refused.text());
    let artifact = &told.run.status.as_ref().unwrap().captures[0].artifacts[0];
    for (name, wanted) in [
        (r#"diagbot_requests_total{outcome="created"}"#, 2.0),
        (r#"diagbot_runs_finished_total{outcome="Succeeded"}"#, 1.0),
        (r#"diagbot_runs_finished_total{outcome="Refused"}"#, 1.0),
        (r#"diagbot_captures_finished_total{outcome="Succeeded"}"#, 1.0),
        ("diagbot_captures_active", 0.0),
        ("diagbot_link_seconds_count", 1.0),
        ("diagbot_artifact_bytes_total", artifact.size_bytes as f64),
        ("diagbot_journal_lines_rejected_total", 0.0),
    ] {
        until_total(&product, name, wanted).await;
    }
    // What the documentation names is there.
    let bot = &product.installation.addresses().bots[0];
    let (_, body) = fetch(&format!("{bot}/metrics")).await.unwrap();
    let exposition = String::from_utf8(body.to_vec()).unwrap();
    let manual = include_str!("../../deploy/README.md");
    let words = manual.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let named: Vec<&str> = words.filter(|word| word.starts_with("diagbot_")).collect();
    assert!(named.len() > 5, "{named:?}");
    for name in named {
        let family = name.trim_end_matches("_total").trim_end_matches("_bucket");
        assert!(exposition.contains(&format!("# TYPE {family} ")), "{name}");
    }
    // Every outcome is there from the start, and no other came.
    for (family, outcomes) in [
        ("requests", 4),
        ("runs_finished", 8),
        ("captures_finished", 4),
        ("slack_calls", 4),
        ("record_writes", 3),
    ] {
        let series = exposition.matches(&format!("\ndiagbot_{family}_total{{")).count();
        assert_eq!(series, outcomes, "{family}: {exposition}");
    }
    product.stop().await;
}
