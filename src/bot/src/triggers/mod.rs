//! Triggers: alerts of other systems become runs. A front beside `slack`: it talks to [`diagbot_runs::service`] only.
//!
//! Owns who may deliver (signatures, tokens), what an alert means (rules) and how often one alert may start something
//! (windows). What pods themselves show is a source beside webhooks ([`kubernetes`]). Never looks into a cluster to answer a
//! delivery, and never decides whether a trigger may: a trigger is a
//! principal of its own (`trigger:<name>`), whose rights the controller reviews as it does a person's.
//!
//! # Design notes
//! TLS ends at the ingress: certificates and their renewal are its business already, and the listener is a port of its own,
//! so that an ingress exposes neither health nor metrics.
//!
//! A delivery is accepted when its runs are recorded; the name of a run follows from source, fingerprint, target and
//! window, so that the API server itself refuses a second capture, on any replica and after any restart. What comes
//! besides within the window is counted on the run and said in its thread.

pub mod alert;
pub mod alert_counter;
pub mod alertmanager;
pub mod config;
pub mod front;
pub mod kubernetes;
pub mod notes;
pub mod pagerduty;
pub mod rule;
pub mod secrets;
pub mod window;

#[cfg(test)]
mod tests;
