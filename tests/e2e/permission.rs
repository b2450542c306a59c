//! The table of rules against a real API server: the same roles, bindings, labels and words as on the sandbox
//! (`tests/stories/permission_rules.rs`), and the same answers, word for word.

use diagbot_tests::rules::{self, Place};

use crate::{
    installation::{Variation, story},
    workload::Workload,
};

#[tokio::test]
#[ignore = "needs cluster"]
async fn the_table_of_rules_holds_on_a_real_cluster() -> anyhow::Result<()> {
    story("permission", Variation::default(), async |installation| {
        let pod = Workload::ledger("ledger-of-rules");
        installation.start_all(&pod).await?;
        let place = Place {
            client: installation.client.clone(),
            people: installation.people.clone(),
            home: installation.home.clone(),
            namespace: installation.target.clone(),
            pod: pod.name().to_owned(),
            cluster: "local".to_owned(),
        };
        for line in rules::hold(&place).await? {
            eprintln!("  {line}");
        }
        Ok(())
    })
    .await
}
