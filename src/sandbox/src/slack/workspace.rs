//! The workspace: all state of the local Slack behind one lock, and the bell that rings when it changes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    calls::CallLog,
    config::SlackConfig,
    delivery::Waiting,
    directory::{Directory, SLACKBOT},
    faults::Faults,
    limits::RateLimits,
    link::Links,
    message::{ChannelLog, Message},
};

/// How long a `trigger_id` may be used. Slack: 3 s, once.
const TRIGGER_LIFETIME: Duration = Duration::from_secs(3);
/// How long a `response_url` may be used. Slack: 30 min.
const RESPONSE_URL_LIFETIME: Duration = Duration::from_mins(30);
/// How often a `response_url` may be used. Slack: 5 times.
const RESPONSE_URL_USES: u32 = 5;

/// How long either is remembered, so that it can be refused by the right name.
const MEMORY: Duration = Duration::from_hours(1);

/// A `trigger_id` that was handed out.
#[derive(Debug)]
pub(super) struct Trigger {
    issued: Instant,
    used: bool,
    pub(super) user: String,
}

/// A `response_url` that was handed out.
#[derive(Clone, Debug)]
pub(super) struct ResponseUrl {
    issued: Instant,
    uses: u32,
    pub(super) channel: String,
    pub(super) user: String,
    /// The message whose button was clicked.
    pub(super) origin: Option<String>,
}

/// A modal that is open.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) user: String,
    /// The view as Slack describes it, with id, hash and state.
    pub(super) value: Value,
}

/// A file that was announced, and its content once it was sent.
#[derive(Clone, Debug)]
pub(super) struct Upload {
    pub(super) name: String,
    pub(super) length: usize,
    pub(super) content: Option<Vec<u8>>,
}

/// The tokens that count.
pub(super) struct Tokens {
    pub(super) app: Vec<String>,
    pub(super) bot: Vec<String>,
}

/// Everything that the local Slack knows.
pub(super) struct State {
    pub(super) tokens: Tokens,
    pub(super) directory: Directory,
    pub(super) logs: HashMap<String, ChannelLog>,
    pub(super) views: BTreeMap<String, View>,
    pub(super) uploads: HashMap<String, Upload>,
    pub(super) links: Links,
    pub(super) waiting: HashMap<String, Waiting>,
    pub(super) faults: Faults,
    pub(super) limits: RateLimits,
    pub(super) calls: CallLog,
    triggers: HashMap<String, Trigger>,
    responses: HashMap<String, ResponseUrl>,
    started_ms: i64,
    counter: u64,
    last_ts_micros: i64,
}

impl State {
    fn new(config: &SlackConfig) -> State {
        let mut faults = Faults::default();
        config.faults.iter().cloned().for_each(|fault| faults.arm(fault));
        State {
            tokens: Tokens {
                app: vec![config.app_token.clone()],
                bot: vec![config.bot_token.clone()],
            },
            directory: Directory::fixture(&config.bot_name).with_crowd(config.crowd, config.rooms),
            logs: HashMap::new(),
            views: BTreeMap::new(),
            uploads: HashMap::new(),
            links: Links::default(),
            waiting: HashMap::new(),
            faults,
            limits: RateLimits::default(),
            calls: CallLog::default(),
            triggers: HashMap::new(),
            responses: HashMap::new(),
            started_ms: jiff::Timestamp::now().as_millisecond(),
            counter: 0,
            last_ts_micros: 0,
        }
    }

    /// An id that no earlier or later Slack of this kind hands out.
    pub(super) fn id(&mut self, prefix: &str) -> String {
        self.counter += 1;
        format!("{prefix}{:X}{:05X}", self.started_ms, self.counter)
    }

    /// A message time stamp: the present, and later than any before.
    pub(super) fn ts(&mut self) -> String {
        let micros = jiff::Timestamp::now().as_microsecond().max(self.last_ts_micros + 1);
        self.last_ts_micros = micros;
        format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
    }

    /// A new `trigger_id` for what this user just did.
    pub(super) fn trigger(&mut self, user: &str) -> String {
        self.counter += 1;
        let id = format!(
            "{}.{}.{:016x}",
            self.started_ms,
            self.counter,
            self.counter.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        );
        self.triggers.retain(|_, trigger| trigger.issued.elapsed() < MEMORY);
        self.triggers.insert(
            id.clone(),
            Trigger {
                issued: Instant::now(),
                used: false,
                user: user.to_owned(),
            },
        );
        id
    }

    /// Uses a `trigger_id` up. `Err` is Slack's error name.
    pub(super) fn spend_trigger(&mut self, id: &str) -> Result<String, &'static str> {
        let trigger = self.triggers.get_mut(id).ok_or("invalid_trigger_id")?;
        if trigger.used {
            return Err("exchanged_trigger_id");
        }
        if trigger.issued.elapsed() > TRIGGER_LIFETIME {
            return Err("expired_trigger_id");
        }
        trigger.used = true;
        Ok(trigger.user.clone())
    }

    /// The path of a new `response_url`.
    pub(super) fn response_path(&mut self, channel: &str, user: &str, origin: Option<&str>) -> String {
        let path = format!("/response/{}", self.id("R"));
        let response = ResponseUrl {
            issued: Instant::now(),
            uses: 0,
            channel: channel.to_owned(),
            user: user.to_owned(),
            origin: origin.map(str::to_owned),
        };
        self.responses.retain(|_, response| response.issued.elapsed() < MEMORY);
        self.responses.insert(path.clone(), response);
        path
    }

    /// Uses a `response_url` once more. `Err` is Slack's answer.
    pub(super) fn spend_response(&mut self, path: &str) -> Result<ResponseUrl, &'static str> {
        let response = self.responses.get_mut(path).ok_or("no_such_url")?;
        if response.issued.elapsed() > RESPONSE_URL_LIFETIME {
            return Err("expired_url");
        }
        if response.uses == RESPONSE_URL_USES {
            return Err("used_url");
        }
        response.uses += 1;
        Ok(response.clone())
    }

    /// The log of a channel.
    pub(super) fn log(&self, channel: &str) -> &ChannelLog {
        static EMPTY: ChannelLog = ChannelLog { messages: Vec::new() };
        self.logs.get(channel).unwrap_or(&EMPTY)
    }

    /// The same, to change it.
    pub(super) fn log_mut(&mut self, channel: &str) -> &mut ChannelLog {
        self.logs.entry(channel.to_owned()).or_default()
    }

    /// Slack itself tells one user something.
    pub(super) fn slackbot_says(&mut self, channel: &str, user: &str, text: &str) {
        let ts = self.ts();
        let message = Message {
            ephemeral_to: Some(user.to_owned()),
            ..Message::new(ts, SLACKBOT, text)
        };
        self.log_mut(channel).messages.push(message);
    }

    /// Gives an id to each block and each interactive element without one, as Slack does.
    pub(super) fn name_blocks(&mut self, blocks: &mut [Value]) {
        for block in blocks {
            self.name_part(block, "block_id");
            for element in block["elements"].as_array_mut().into_iter().flatten() {
                if element["type"] == "button" {
                    self.name_part(element, "action_id");
                }
            }
        }
    }

    fn name_part(&mut self, part: &mut Value, key: &str) {
        if part.is_object() && part[key].as_str().is_none_or(str::is_empty) {
            self.counter += 1;
            part[key] = json!(format!("{:05x}", self.counter));
        }
    }
}

/// The state, the bell, and the tasks that serve it.
pub(super) struct Workspace {
    pub(super) config: SlackConfig,
    /// `http://127.0.0.1:PORT`.
    pub(super) base: String,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
    state: Mutex<State>,
    bell: watch::Sender<u64>,
}

impl Workspace {
    /// A workspace that answers at `base`.
    pub(super) fn new(config: SlackConfig, base: String) -> Arc<Workspace> {
        let state = Mutex::new(State::new(&config));
        let (tasks, stop, bell) = (TaskTracker::new(), CancellationToken::new(), watch::Sender::new(0));
        Arc::new(Workspace {
            config,
            base,
            tasks,
            stop,
            state,
            bell,
        })
    }

    /// Looks at the state.
    pub(super) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the state and rings the bell.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.bell.send_modify(|version| *version += 1);
        result
    }

    /// How often the state has changed.
    pub(super) fn version(&self) -> u64 {
        *self.bell.borrow()
    }

    /// Looks again at every change until there is an answer, the deadline has passed, or the server stops.
    pub(super) async fn wait<T>(&self, deadline: Instant, mut look: impl FnMut(&State) -> Option<T>) -> Option<T> {
        let mut bell = self.bell.subscribe();
        loop {
            bell.borrow_and_update();
            if let Some(found) = self.read(&mut look) {
                return Some(found);
            }
            tokio::select! {
                changed = timeout_at(deadline, bell.changed()) => changed.ok()?.ok()?,
                () = self.stop.cancelled() => return None,
            }
        }
    }
}
