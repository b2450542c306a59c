//! Conventional conditions of our objects, as `kubectl wait --for=condition=…` reads them. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Condition type: it ended, and all that was asked for is there. Named as a Job's.
pub const COMPLETE: &str = "Complete";
/// Condition type: it ended otherwise. Named as a Job's.
pub const FAILED: &str = "Failed";

/// Sets a condition; the time of its last transition stays where its status does.
pub fn set(conditions: &mut Vec<Condition>, mut condition: Condition) {
    let same = |former: &&Condition| former.type_ == condition.type_ && former.status == condition.status;
    if let Some(former) = conditions.iter().find(same) {
        condition.last_transition_time = former.last_transition_time.clone();
    }
    conditions.retain(|former| former.type_ != condition.type_);
    conditions.push(condition);
}

/// How something ended: [`COMPLETE`], or [`FAILED`] with the reason.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// All is there.
    pub complete: bool,
    /// A CamelCase word.
    pub reason: &'a str,
    /// For people.
    pub message: &'a str,
}

impl End<'_> {
    /// The condition that tells it.
    pub fn condition(self, generation: Option<i64>, now: Timestamp) -> Condition {
        Condition {
            type_: if self.complete { COMPLETE } else { FAILED }.to_owned(),
            status: "True".to_owned(),
            reason: self.reason.to_owned(),
            message: self.message.to_owned(),
            observed_generation: generation,
            last_transition_time: Time(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_replaced_and_keeps_its_time_while_its_status_stays() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let told = |status: &str, second| Condition {
            type_: "Reported".to_owned(),
            status: status.to_owned(),
            reason: "Told".to_owned(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: Time(at(second)),
        };
        let end = End {
            complete: false,
            reason: "PodGone",
            message: "The pod is gone",
        };
        let mut conditions = vec![end.condition(Some(1), at(1))];
        for (status, second, since) in [("False", 2, 2), ("False", 3, 2), ("True", 4, 4), ("True", 5, 4)] {
            set(&mut conditions, told(status, second));
            let [ended, reported] = conditions.as_slice() else {
                panic!("{conditions:?}")
            };
            assert_eq!((ended.type_.as_str(), ended.reason.as_str()), (FAILED, "PodGone"));
            assert_eq!(
                (reported.status.as_str(), reported.last_transition_time.0),
                (status, at(since))
            );
        }
    }
}
