//! User stories on the sandbox: Slack in, store and thread out. One binary; a module a story.

#![allow(
    clippy::unwrap_used,
    reason = "a story that meets something unexpected fails where it does"
)]

mod armed;
mod asking;
mod bad_input;
mod bad_output;
mod budgets;
mod captures;
mod chaos;
mod cluster_faults;
mod crash;
mod deploy;
mod evidence;
mod faults;
mod fence;
mod form;
mod host_processes;
mod identity;
mod metrics;
mod offers;
mod once;
mod pagerduty;
mod permission;
mod permission_rules;
mod product;
mod rates;
mod record;
mod replicas;
mod rotation;
mod runbooks;
mod runs;
mod schedules;
mod sealed;
mod secrets;
mod slack;
mod slack_faults;
mod stopping;
mod store_faults;
mod terminal;
mod tools;
mod triggers;
mod unconfirmed;
