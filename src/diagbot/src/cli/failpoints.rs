//! The names of all failpoints, for the test that has the process die at each.

use crate::{captures, failpoint::Moment, runs, slack};

/// Every failpoint: `<module>.<action>:<moment>`.
pub fn failpoints() -> Vec<String> {
    let actions = [runs::ACTIONS, captures::ACTIONS, slack::ACTIONS].concat().concat();
    let points = actions
        .iter()
        .flat_map(|action| Moment::ALL.map(|moment| (action, moment)));
    points
        .map(|(action, moment)| format!("{action}:{}", moment.as_str()))
        .collect()
}
