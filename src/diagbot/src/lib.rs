//! diagbot: evidence from sick pods, for people who may not exec into production.
//!
//! This page is the map. A request enters through a front (`slack`), is accepted by one durable create ([`runs`]), decided,
//! and handed to [`captures`] as an object of its own; the captured bytes go from the pod straight to the store
//! ([`artifacts`]); the front tells people what became of it.
//!
//! A module imports only what stands below it:
//!
//! ```text
//! main  cli           parse, wire, print the error chain once, exit code
//! config              composes the settings that live with the modules they configure
//! http                health, metrics, webhooks
//! slack  triggers  schedules    fronts: they talk to runs::service only, never to each other
//! runs                the only place that changes a run
//! captures            executes captures; knows no Slack, no person
//! admission           how often
//! access              who may
//! record              who did what: hash chains, kept in the store
//! artifacts  cluster  the store and Kubernetes
//! telemetry  retry  tasks  clock  failpoint
//! ```
//!
//! `tests/layers.rs` holds the sources to this order.
//!
//! Runs and captures are two resources and two controllers, joined by the capture object only: see
//! [`runs::resource`] and [`captures::resource`].
//!
//! # Bounds
//! No queue, cache, retry or history is without a limit. Each limit is a constant where it holds; captures under way are
//! `agent.concurrency` for each cluster.
//!
//! ```text
//! slack/socket/link.rs          UNDER_WAY          256                             envelopes under way on one connection; further ones wait unread
//! slack/socket/slot.rs          MESSAGE_BYTES      4 << 20                         one message of Slack
//! slack/api/mod.rs              ANSWER_BYTES       4 << 20                         one answer of Slack
//! slack/front/later.rs          WAITING            512                             answers that wait; beyond, people hear that the bot is busy
//! slack/front/later.rs          AT_ONCE            64                              answers under way
//! slack/front/seen.rs           MOST               8_192                           envelope ids remembered
//! slack/directory.rs            MOST               2_000                           people and channels remembered
//! slack/thread/mod.rs           AT_ONCE            16                              runs that people are being told about
//! slack/thread/budget.rs        CHANNELS           1_000                           channels whose pace is kept
//! slack/front/accept.rs         MOST_ARMED         50                              runs that wait for a restart
//! runs/plan/armed.rs            MOST_PODS          50                              pods that each of them looks at
//! triggers/tally.rs             REMEMBERED         10_000                          alerts remembered
//! triggers/front.rs             MOST_ALERTS        500                             alerts of one webhook
//! http/mod.rs                   MAX_CONNECTIONS    64                              connections for health and metrics
//! http/webhooks.rs              MAX_CONNECTIONS    64                              connections of webhooks
//! http/webhooks.rs              BODY_BYTES         1 << 20                         one webhook
//! access/review.rs              CACHE_SIZE         4096                            reviews remembered, for 10 s
//! admission/rate.rs             SWEEP_ABOVE        1024                            people and channels that count, swept beyond
//! runs/records.rs               BACKLOG            256                             changes that a reader may be behind before it is shown all
//! runs/controller.rs            PARALLEL           16                              runs looked at
//! runs/controller.rs            STEPS              32                              actions of one look
//! runs/service/accept.rs        CONFIRM_ATTEMPTS   40                              creates of a request that is not confirmed
//! runs/service/bundle.rs        AT_ONCE            2                               bundles being made, each with one part in memory
//! runs/service/bundle.rs        LONGEST            16 << 30                        one bundle, in bytes
//! runs/retention.rs             MOST               2000                            finished runs kept, but
//! runs/retention.rs             SHORTEST           SignedDuration::from_hours(3)   none is removed earlier,
//! runs/retention.rs             LONGEST            SignedDuration::from_hours(72)  and all are then that no series holds
//! captures/plan/mod.rs          MAX_ATTEMPTS       3                               containers of one capture
//! captures/pursuit.rs           LOG_QUEUE          64                              lines of one journal, read and not understood
//! captures/pursuit.rs           LAST_PATIENCE_S    600                             seconds after its deadline in which a capture's action is tried again
//! captures/record.rs            ATTEMPTS           5                               conflicts in a row of one write
//! captures/log.rs               MAX_READ_BYTES     4 * MAX_JOURNAL_BYTES           one journal with its noise
//! captures/act/keep.rs          MAX_RESULT_BYTES   256 * 1024                      one result object
//! captures/identity.rs          LEARNT_IMAGES      256                             images whose user is remembered
//! captures/relay.rs             RELAYS             4                               artifacts that the bot itself carries
//! captures/relay.rs             FRAMES             8                               frames of each that wait for the store
//! artifacts/store/limits.rs     RESERVED_CONNECTIONS  32                          connections of the store kept for the bot's own requests
//! artifacts/store/limits.rs     PEER_CONNECTIONS      64                          connections of one address that wait, and as many requests by URL
//! artifacts/store/limits.rs     BODIES                32                          bodies that the store receives at once
//! artifacts/store/limits.rs     RESERVED_BODIES       8                           of them kept for the bot's own requests
//! artifacts/store/limits.rs     PEER_BODIES           8                           of them from one address
//! artifacts/store/limits.rs     UPLOAD_BODIES         6                           of them for one upload
//! artifacts/store/limits.rs     URL_VERSIONS          8                           versions of one object that URLs write
//! artifacts/store/limits.rs     FREE_RESERVE_BYTES    1 << 30                     bytes of the disk kept for the bot's records
//! artifacts/folder.rs           MOST_NAMES         1_000                           numbers behind an artifact's name in a folder
//! cluster/symptoms.rs           PAGE               100                             pods of one page of a first list
//! artifacts/upload.rs           MOST_OPEN_UPLOADS  10_000                          uploads in one look for orphans
//! ```
//!
//! `tests/bounds.rs` holds this table to the sources.

pub mod access;
pub mod admission;
pub mod artifacts;
pub mod captures;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod failpoint;
pub mod http;
pub mod record;
pub mod retry;
pub mod runs;
pub mod schedules;
pub mod slack;
pub mod tasks;
pub mod telemetry;
pub mod triggers;
