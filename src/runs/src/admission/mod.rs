//! How often and how much: rates at the door, budgets over the durable runs.

pub mod budget;
pub mod rate;

pub use budget::{Ask, BudgetConfig, OverBudget, Use};
pub use rate::{RateConfig, RateLimiter, TooOften};
