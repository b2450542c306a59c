//! A target that attacks the agent: same uid, same process namespace, every way into a neighbour that /proc offers.

use anyhow::{Context as _, ensure};
use diagbot_api::run::Phase;

use crate::{
    installation::{Variation, story},
    kubectl::log,
    workload::Workload,
};

/// Tries a neighbour's journal (standard output), control lines (standard input), memory, environment and files: first of a
/// process that is not closed, where each attempt must work, then of every agent that it sees, for ever. Says what it got,
/// and whether the agent was still there after the last attempt. `comm` is all that anybody may read of an agent.
const ATTACKER: &str = r#"
attempt() {
  if (eval "$3") >/dev/null 2>&1; then echo "$1: GOT $2"; else echo "$1: refused $2"; fi
}
attack() {
  p=$2
  first=$(head -n 1 /proc/$p/maps 2>/dev/null)
  first=${first:-400000-}
  at=$((0x${first%%-*}))
  attempt $1 journal 'echo "{\"seq\":2,\"body\":\"{}\",\"mac\":\"\"}" > /proc/$p/fd/1'
  attempt $1 control ': < /proc/$p/fd/0'
  attempt $1 memory 'dd if=/proc/$p/mem bs=1 count=1 skip=$at | grep -q .'
  attempt $1 memory-file ': < /proc/$p/mem'
  attempt $1 environment 'cat /proc/$p/environ'
  attempt $1 maps 'cat /proc/$p/maps | grep -q .'
  attempt $1 root 'ls /proc/$p/root/'
}
: > /tmp/in
sleep 86400 < /tmp/in > /tmp/out &
attack open $!
seen=0
while :; do
  for c in /proc/[0-9]*/comm; do
    read -r name < $c 2>/dev/null || continue
    case $name in diagbot*)
      p=${c#/proc/}; p=${p%/comm}
      [ "$p" = "$seen" ] && continue
      seen=$p
      attack agent $p
      read -r name < /proc/$p/comm 2>/dev/null && echo "agent: alive $name";;
    esac
  done
done
"#;
/// What is attempted, in order.
const ATTEMPTS: [&str; 7] = [
    "journal",
    "control",
    "memory",
    "memory-file",
    "environment",
    "maps",
    "root",
];

#[tokio::test]
#[ignore = "needs cluster"]
async fn a_hostile_process_of_the_agents_uid_gets_nothing_of_it() -> anyhow::Result<()> {
    story("hostile", Variation::default(), async |installation| {
        let mallory = Workload::script("mallory", ATTACKER).user(1000).writable("/tmp");
        installation.start_all(&mallory).await?;
        installation.wait_for_log("mallory", "open: GOT root").await?;
        let outcome = installation.ask("process", "mallory").await?;
        outcome.must_be(Phase::Succeeded)?;
        outcome.download().await?;
        let words = log(&installation.target, "mallory", "app").await?;
        eprintln!("  {}", words.trim().replace('\n', ", "));
        for attempt in ATTEMPTS {
            let works = format!("open: GOT {attempt}");
            ensure!(
                words.lines().any(|line| line == works),
                "the attempt works on nobody: {attempt}\n{words}"
            );
        }
        ensure!(!words.contains("agent: GOT"), "the attacker got something:\n{words}");
        let refused: Vec<&str> = words.lines().filter_map(|line| line.strip_prefix("agent: ")).collect();
        let expected: Vec<String> = ATTEMPTS.iter().map(|attempt| format!("refused {attempt}")).collect();
        ensure!(
            refused.get(..ATTEMPTS.len()).context("all of it was attempted")? == expected,
            "not all of it was attempted:\n{words}"
        );
        // What has ended refuses everything.
        ensure!(
            refused
                .get(ATTEMPTS.len())
                .is_some_and(|last| last.starts_with("alive diagbot")),
            "the agent had ended before the last attempt:\n{words}"
        );
        Ok(())
    })
    .await
}
