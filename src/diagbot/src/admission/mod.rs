//! How often and how much: rates at the door, budgets over the durable runs.

pub mod rate;

pub use rate::{Door, RateConfig, TooOften};
