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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_actions_never_change() {
        let actions = [runs::ACTIONS, captures::ACTIONS, slack::ACTIONS].concat().concat();
        let names = "runs.find-target runs.review runs.survey runs.record runs.create-capture runs.cancel-captures \
            runs.wait runs.accept runs.record-telling captures.attempt captures.open-uploads captures.add-container \
            captures.look-closer captures.send-ticket captures.send-urls captures.relay captures.send-release \
            captures.send-cancel captures.read-result captures.complete captures.report captures.abort-uploads \
            captures.write-manifest captures.observe captures.finish slack.post slack.edit";
        assert_eq!(actions.join(" "), names);
    }
}
