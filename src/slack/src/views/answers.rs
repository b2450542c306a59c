//! Answers to a person: what was wrong with a text, that a request is recorded, lists and help.

use std::fmt::Write as _;

use diagbot_api::{capture::Explanation, request_key::RunName, requester::Requester, run::Phase};
use diagbot_catalog::{
    Catalog, ContainerState, Diagnostic, Impact, Method, Runbook, RunbookStep, Sensitivity, Targets,
};
use diagbot_runs::service::PauseOutcome;
use jiff::Timestamp;

use super::{
    Builder, Message,
    escape::{code, line, moment, prose},
    run::RunView,
    words::{explanation, person, phase_word},
};
use crate::grammar::{BuiltIn, Fault};

fn one(text: &str) -> Message {
    Builder::new().section(text).build()
}

/// A text that is no request.
pub fn fault(fault: &Fault, command: &str) -> Message {
    one(&format!(
        "{}\n*What to do:* {}",
        prose(&fault.to_string()),
        prose(&fault.remedy(command))
    ))
}

/// The request is recorded.
pub fn accepted(run: &RunName, what: &str, completed: Option<(&str, &str)>) -> Message {
    let mut text = format!("Run {} is recorded: {}.", code(&run.short()), code(what));
    if let Some((typed, diagnostic)) = completed {
        let _ = write!(text, " {} is taken for {}.", code(typed), code(diagnostic));
    }
    one(&text)
}

/// Whether the request is recorded is not known yet.
pub fn unconfirmed(run: &RunName) -> Message {
    one(&format!(
        "Run {} is *not confirmed yet*: the cluster gave no answer in time. It is being tried again; you will be told here which.\n\
         *What to do:* should you hear nothing for 10 minutes, it was not recorded and will not run: send it again.",
        code(&run.short())
    ))
}

/// Whether the request was recorded is not known, and nobody tries any more.
pub fn given_up(run: &RunName) -> Message {
    one(&format!(
        "Run {} could *not be confirmed*: the cluster that keeps the cache gave no answer, and it is not tried again.\n*What to do:* send it \
         again. Should a message of this run appear as well, it had been recorded after all: cancel one of the two.",
        code(&run.short())
    ))
}

/// A request that was uncertain is recorded.
pub fn confirmed(run: &RunName) -> Message {
    one(&format!("Run {} is confirmed: it is recorded.", code(&run.short())))
}

/// The request could not be recorded.
pub fn not_recorded(run: &RunName) -> Message {
    one(&format!(
        "Run {} was *not recorded* and does not run: the cluster that keeps the cache does not take it.\n*What to do:* try again in a minute; if it \
         stays so, tell the people who keep this bot.",
        code(&run.short())
    ))
}

/// A rule refuses the request.
pub fn rejected(run: &RunName, reason: &Explanation) -> Message {
    Builder::new()
        .section(&explanation(reason))
        .context(&format!("Run {} · {}", code(&run.short()), line(&reason.code)))
        .build()
}

/// A rule refuses what belongs to no run.
pub fn explained(reason: &Explanation) -> Message {
    one(&explanation(reason))
}

/// Somebody was first: a button pressed again.
pub fn already_pressed(run: &RunName, by: &Requester, at: Timestamp) -> Message {
    one(&format!(
        "{} was first, {}: run {}.",
        person(by),
        moment(at),
        code(&run.short())
    ))
}

/// Too much is under way in this process.
pub fn busy() -> Message {
    one("The bot has too much to do at this moment; nothing was started.\n*What to do:* try again in a few seconds.")
}

/// The records were not read yet.
pub fn starting() -> Message {
    one("The bot is starting and has not read its records yet.\n*What to do:* try again in a few seconds.")
}

/// No such run.
pub fn no_run(spoken: Option<&str>, command: &str) -> Message {
    let what = match spoken {
        Some(spoken) => format!(
            "There is no run {}.",
            code(&spoken.chars().take(40).collect::<String>())
        ),
        None => "There is no run of yours that fits.".to_owned(),
    };
    one(&format!("{what}\n*What to do:* `{command} runs` lists them."))
}

/// Several runs.
pub fn several_runs(names: &[RunName]) -> Message {
    let names: Vec<String> = names.iter().take(10).map(|name| code(name.as_str())).collect();
    one(&format!(
        "Several runs have ids that begin so: {}.\n*What to do:* type more of the id.",
        names.join(", ")
    ))
}

/// A list of runs.
pub fn runs(views: &[RunView<'_>], more: bool) -> Message {
    if views.is_empty() {
        return one("There are no such runs.");
    }
    let mut message = Builder::new();
    for chunk in views.chunks(5) {
        let lines: Vec<String> = chunk.iter().map(RunView::list_line).collect();
        message = message.section(&lines.join("\n"));
    }
    if more {
        message = message.context("There are more; name a target or a shorter time.");
    }
    message.build()
}

/// A request to cancel is recorded.
pub fn cancel_asked(run: &RunName) -> Message {
    one(&format!(
        "Run {} is asked to stop; its message says *cancelled* when that is proven.",
        code(&run.short())
    ))
}

/// The request to cancel is on its way.
pub fn cancel_pending(run: &RunName) -> Message {
    one(&format!(
        "Run {} is being asked to stop; the cluster takes its time. You will be told here.",
        code(&run.short())
    ))
}

/// Somebody had asked before.
pub fn cancel_asked_before(run: &RunName, by: &Requester, at: Timestamp) -> Message {
    one(&format!(
        "{} had asked run {} to stop, {}.",
        person(by),
        code(&run.short()),
        moment(at)
    ))
}

/// It had ended.
pub fn ended_before(run: &RunName, phase: Phase) -> Message {
    one(&format!(
        "Run {} had ended: *{}*.",
        code(&run.short()),
        phase_word(phase)
    ))
}

/// A word of a second person is recorded.
pub fn said(run: &RunName, approved: bool) -> Message {
    let word = if approved { "agreed to" } else { "did not agree to" };
    one(&format!(
        "You {word} run {}; its message says what follows.",
        code(&run.short())
    ))
}

/// Somebody had said something before.
pub fn said_before(run: &RunName, by: &Requester, approved: bool, at: Timestamp) -> Message {
    let word = if approved { "agreed to" } else { "did not agree to" };
    one(&format!(
        "{} {word} run {} before, {}.",
        person(by),
        code(&run.short()),
        moment(at)
    ))
}

/// Nothing is asked about it any more.
pub fn asked_no_more(run: &RunName, phase: Phase) -> Message {
    one(&format!(
        "Nobody is asked about run {} any more: *{}*.",
        code(&run.short()),
        phase_word(phase)
    ))
}

/// What the owners would have to apply.
pub fn grant(run: &RunName, yaml: &str) -> Message {
    one(&format!(
        "What the owners of the namespace would apply for what was denied in run {} (`kubectl create -f`):\n{}",
        code(&run.short()),
        super::escape::block(yaml, 40, 200)
    ))
}

/// Nothing was denied.
pub fn no_grant(run: &RunName) -> Message {
    one(&format!("Nothing was denied in run {}.", code(&run.short())))
}

/// A look-up takes its time.
pub fn looking() -> Message {
    one("Looking; the cluster takes its time. You will be told here.")
}

/// A switch.
pub fn switched(outcome: &PauseOutcome, heard: bool, command: &str) -> Message {
    let mut words = match outcome {
        PauseOutcome::Paused(place) => format!(
            "*Paused:* nothing new is captured in {}, and what runs there is stopped.\n*What to do:* `{command} resume` \
             with the same place allows it again.",
            prose(&place.words())
        ),
        PauseOutcome::PausedBefore(pause) => format!(
            "{} is paused already, by {}.",
            prose(&pause.place.words()),
            person(&pause.by)
        ),
        PauseOutcome::Resumed(place) => format!("*Resumed:* captures are allowed again in {}.", prose(&place.words())),
        PauseOutcome::NotPaused(place) => format!("{} was not paused.", prose(&place.words())),
    };
    if !heard {
        words += "\nThis channel could not be told: invite the app here, or tell people yourself.";
    }
    one(&words)
}

/// A switch as everybody in the channel hears it; none where nothing changed.
pub fn announced(outcome: &PauseOutcome, by: &Requester) -> Option<Message> {
    let words = match outcome {
        PauseOutcome::Paused(place) => format!(
            ":double_vertical_bar: *Paused* by {}: nothing new is captured in {}, and what runs there is stopped.",
            person(by),
            prose(&place.words())
        ),
        PauseOutcome::Resumed(place) => format!(
            ":arrow_forward: *Resumed* by {}: captures are allowed again in {}.",
            person(by),
            prose(&place.words())
        ),
        PauseOutcome::PausedBefore(_) | PauseOutcome::NotPaused(_) => return None,
    };
    Some(one(&words))
}

/// A switch that was not done.
pub fn not_switched(reason: Option<&Explanation>) -> Message {
    match reason {
        Some(reason) => explained(reason),
        None => one(
            "That did not succeed: a system that is needed for it gave no answer.\n*What to do:* try again, or set the \
             label `diagbot.dev/paused=true` on the namespace of the bot.",
        ),
    }
}

/// Something that was asked about a run did not succeed.
pub fn failed(run: &RunName, reason: Option<&Explanation>) -> Message {
    match reason {
        Some(reason) => rejected(run, reason),
        None => one(&format!(
            "That did not succeed for run {}: a system that is needed for it gave no answer.\n*What to do:* try again in a minute.",
            code(&run.short())
        )),
    }
}

/// A button whose run is gone.
pub fn button_over(run: &RunName) -> Message {
    one(&format!(
        "That button is over: run {} is not on record any more.\n*What to do:* type the command again.",
        code(&run.short())
    ))
}

/// All diagnostics and runbooks.
pub fn list(catalog: &Catalog, command: &str) -> Message {
    let lines: Vec<String> = catalog
        .iter()
        .map(|d| {
            let impact = match d.impact {
                Impact::None => String::new(),
                impact => format!(" – _{}_", impact_words(impact)),
            };
            format!("{} – {}{impact}", code(d.name.as_str()), prose(&d.summary))
        })
        .collect();
    let mut message = Builder::new();
    for chunk in lines.chunks(15) {
        message = message.section(&chunk.join("\n"));
    }
    let runbooks: Vec<String> = catalog
        .runbooks()
        .map(|r| {
            let impact = match r.impact(catalog) {
                Impact::None => String::new(),
                impact => format!(" – _{}_", impact_words(impact)),
            };
            format!("{} – {}{impact}", code(r.name.as_str()), prose(&r.summary))
        })
        .collect();
    for chunk in runbooks.chunks(15) {
        message = message.section(&format!("*Runbooks*\n{}", chunk.join("\n")));
    }
    message
        .context(&format!(
            "`{command} &lt;diagnostic&gt; &lt;target&gt;` runs one; `{command} help &lt;diagnostic&gt;` tells more."
        ))
        .build()
}

/// One runbook in detail.
pub fn help_runbook(runbook: &Runbook, catalog: &Catalog, command: &str) -> Message {
    let name = runbook.name.as_str();
    let mut text = format!("*{name}* (runbook) – {}", prose(&runbook.summary));
    if !runbook.aliases.is_empty() {
        let aliases: Vec<String> = runbook.aliases.iter().map(|alias| code(alias.as_str())).collect();
        let _ = write!(text, "\nAlso called {}.", aliases.join(", "));
    }
    let targets = match runbook.targets {
        Targets::One => "one pod".to_owned(),
        Targets::All => "every pod that fits".to_owned(),
        Targets::Max(1) => "the sickest pod that fits".to_owned(),
        Targets::Max(max) => format!("the {max} sickest pods that fit"),
    };
    let control = if runbook.healthy_control {
        ", with a healthy replica to compare"
    } else {
        ""
    };
    let _ = write!(
        text,
        "\nLooks at {targets}{control}.\nImpact on the target: {}.",
        impact_words(runbook.impact(catalog)),
    );
    let steps: Vec<String> = (1..)
        .zip(&runbook.steps)
        .map(|(number, step)| format!("{number}. {}", step_line(step)))
        .collect();
    let mut message = Builder::new().section(&text).section(&steps.join("\n"));
    if !runbook.description.is_empty() {
        message = message.section(&prose(&runbook.description));
    }
    message
        .context(&format!(
            "`{command} {name} &lt;target&gt;` runs it; `--dry-run` tells what it would do."
        ))
        .build()
}

fn step_line(step: &RunbookStep) -> String {
    let mut text = code(step.diagnostic.as_str());
    for (key, value) in &step.parameters {
        let _ = write!(text, " {}", code(&format!("{key}={value}")));
    }
    if let Some(repeat) = step.repeat {
        let _ = write!(text, ", {} times, {} s apart", repeat.count, repeat.every.as_secs());
    }
    match step.when.container {
        Some(ContainerState::Running) => text.push_str(", if the container runs"),
        Some(ContainerState::NotRunning) => text.push_str(", if the container does not run"),
        Some(ContainerState::Restarted) => text.push_str(", if the container was restarted"),
        None => {}
    }
    if step.when.runtime.is_some() {
        text.push_str(", if it is a JVM");
    }
    text
}

/// How commands are written.
pub fn help(command: &str) -> Message {
    let words: Vec<&str> = BuiltIn::ALL.iter().map(|b| b.word()).collect();
    Builder::new()
        .section(&format!(
            "*{command} &lt;diagnostic&gt; &lt;target&gt;* `[key=value …] [-n namespace] [-c container] [--cluster name] [--dry-run] [--break-glass \"reason\"]`\n\
             takes evidence from a pod and puts it here as a file behind a link that ends by itself."
        ))
        .section(
            "A target is `[cluster:][namespace/][kind/]name`; the name may be a pod, the beginning of one, or a workload. In a \
             run's thread it may be left out. In threads, mention the bot instead of typing the command.\n\
             `--all` takes every pod that fits, `--max n` the sickest n; `-l app=x` takes labels instead of a name. A runbook is \
             named like a diagnostic and runs several.",
        )
        .section(&format!(
            "`{command} list` – what there is\n`{command} help &lt;diagnostic&gt;` – one in detail\n`{command} status [run]` – where a run \
             is\n`{command} runs [target] [--since 24h]` – earlier runs\n`{command} cancel [run]` – stop one\n\
             `{command} offer [target]` – what fits that target, as buttons for everybody in the channel\n\
             `{command} pause [cluster|namespace]`, `resume` – stop everything there, and allow it again\n\
             `{command} schedule add|list|show|pause|resume|delete` – again and again\n\
             `{command} arm &lt;diagnostic&gt; &lt;target&gt; [--for 24h]` – once, after its next restart\n`{command} health` – what works right now"
        ))
        .context(&format!("Words of the bot itself: {}", words.join(", ")))
        .build()
}

/// One diagnostic in detail.
pub fn help_one(diagnostic: &Diagnostic, command: &str) -> Message {
    let name = diagnostic.name.as_str();
    let mut text = format!("*{name}* – {}", prose(&diagnostic.summary));
    if !diagnostic.aliases.is_empty() {
        let aliases: Vec<String> = diagnostic.aliases.iter().map(|alias| code(alias.as_str())).collect();
        let _ = write!(text, "\nAlso called {}.", aliases.join(", "));
    }
    let _ = write!(
        text,
        "\nImpact on the target: {}.\nTakes {}; at most {} s and {}.\nGives {}{}.",
        impact_words(diagnostic.impact),
        match diagnostic.method {
            Method::Ephemeral => "an ephemeral container beside the target",
            Method::Api => "the Kubernetes API alone, so it works for crashed containers too",
        },
        diagnostic.deadline.as_secs(),
        String::from(diagnostic.limit),
        code(&diagnostic.artifact.name),
        match diagnostic.sensitivity {
            Sensitivity::Normal => "",
            Sensitivity::Sensitive => " (sensitive: links are sent privately only)",
        },
    );
    let mut message = Builder::new().section(&text);
    if !diagnostic.description.is_empty() {
        message = message.section(&prose(&diagnostic.description));
    }
    let parameters: Vec<String> = diagnostic
        .parameters
        .iter()
        .map(|(key, parameter)| {
            let default = match &parameter.default {
                Some(default) => format!("unless given: {}", code(default)),
                None => "must be given".to_owned(),
            };
            format!("{} – {} ({default})", code(&format!("{key}=…")), prose(&parameter.rule))
        })
        .collect();
    if !parameters.is_empty() {
        message = message.section(&parameters.join("\n"));
    }
    message
        .context(&format!(
            "`{command} {name} &lt;target&gt;` runs it; `--dry-run` tells what it would do."
        ))
        .build()
}

pub(super) fn impact_words(impact: Impact) -> &'static str {
    match impact {
        Impact::None => "none that a request would notice",
        Impact::Pause => "stands still for a moment",
        Impact::Heavy => "heavy: stands still for long, or much memory, disk or processor time",
    }
}
