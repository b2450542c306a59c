//! The custom resources, and the values that all of the bot speaks of. No client and no clock.
//!
//! [`run`] and [`capture`] are two resources with a controller each, joined by the capture's object only; [`schedule`] and
//! [`pause`] are the other two. What people type is a [`target`]; what makes a request is its [`request_key`].

pub mod approval;
pub mod capture;
pub mod cluster_name;
pub mod condition;
pub mod decision;
pub mod pause;
pub mod phase;
pub mod request_key;
pub mod requester;
pub mod run;
pub mod schedule;
pub mod target;
