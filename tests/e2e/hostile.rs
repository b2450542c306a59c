//! A target that attacks the agent: same uid, same process namespace, every way into a neighbour that /proc offers.

use anyhow::ensure;
use diagbot::runs::resource::Phase;

use crate::{
    installation::{Variation, story},
    kubectl::log,
    workload::Workload,
};

/// Looks for the agent for ever, and tries its journal (standard output), its control lines (standard input), its memory
/// and its environment. Says what it got. `comm` is all that anybody may read of it.
const ATTACKER: &str = r#"
seen=0
attack() {
  p=$1
  echo "found $p"
  (echo '{"seq":2,"body":"{\"event\":\"end\"}","mac":""}' > /proc/$p/fd/1) 2>/dev/null && echo "GOT journal" || echo "refused journal"
  (: < /proc/$p/fd/0) 2>/dev/null && echo "GOT control" || echo "refused control"
  (dd if=/proc/$p/mem bs=1 count=1 skip=4194304) >/dev/null 2>&1 && echo "GOT memory" || echo "refused memory"
  (: < /proc/$p/mem) 2>/dev/null && echo "GOT memory file" || echo "refused memory file"
  (cat /proc/$p/environ) >/dev/null 2>&1 && echo "GOT environment" || echo "refused environment"
  (cat /proc/$p/maps | grep -q .) 2>/dev/null && echo "GOT maps" || echo "refused maps"
  (cat /proc/$p/root/diagbot-agent) >/dev/null 2>&1 && echo "GOT root" || echo "refused root"
}
while :; do
  for c in /proc/[0-9]*/comm; do
    read -r name < $c 2>/dev/null || continue
    case $name in diagbot*) p=${c#/proc/}; p=${p%/comm}; [ "$p" = "$seen" ] || { seen=$p; attack $p; };; esac
  done
done
"#;

#[tokio::test]
#[ignore = "needs cluster"]
async fn a_hostile_process_of_the_agents_uid_gets_nothing_of_it() -> anyhow::Result<()> {
    story("hostile", Variation::default(), async |installation| {
        installation
            .start_all(&Workload::script("mallory", ATTACKER).user(1000))
            .await?;
        let outcome = installation.ask("process", "mallory").await?;
        outcome.must_be(Phase::Succeeded)?;
        outcome.download().await?;
        let words = log(&installation.target, "mallory", "app").await?;
        eprintln!("  {}", words.trim().replace('\n', ", "));
        ensure!(
            words.contains("refused journal"),
            "the attack did not take place:\n{words}"
        );
        ensure!(!words.contains("GOT"), "the attacker got something:\n{words}");
        Ok(())
    })
    .await
}
