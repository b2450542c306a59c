//! Captures: one target's part of a run each. Executes them; knows no Slack and no person.

pub mod resource;
