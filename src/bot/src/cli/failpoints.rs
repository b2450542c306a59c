//! The names of all failpoints, for the test that has the process die at each.

use diagbot_base::failpoint::Moment;
use diagbot_captures as captures;
use diagbot_runs as runs;
use diagbot_slack as slack;

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
