//! Schedules: at their times they become runs. A front beside `slack`: it talks to [`diagbot_runs::service`] only.
//!
//! Owns when something starts: one run for each due instant, on whichever replica leads, and what becomes of missed ones.
//! Never decides whether the owner may: the run is the owner's, and the controller reviews it as any other.
//!
//! # Design notes
//! A run's name follows from the schedule's UID and the due instant. So a leader that dies between the create and the record
//! of it, or two that both think they lead, come to the same run, and the record may be written after the act.

pub mod controller;
pub mod plan;
