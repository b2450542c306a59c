//! Two sets of findings side by side: what a sick replica shows and a healthy one does not. Pure.

/// How two replicas differ in one finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// Only the first shows it.
    OnlyFirst(String),
    /// Only the second shows it.
    OnlySecond(String),
    /// Both show it with other numbers.
    Changed {
        /// As the first has it.
        first: String,
        /// As the second has it.
        second: String,
    },
    /// Both show the very same.
    Same(String),
}

/// Compares findings of one kind of evidence. What only one of the two shows comes first, then what differs in numbers, then
/// what is the same.
pub fn compare(first: &[String], second: &[String]) -> Vec<Difference> {
    let mut left: Vec<&String> = second.iter().collect();
    let mut differences: Vec<Difference> = Vec::new();
    for finding in first {
        let shape = shape(finding);
        let equal = left.iter().position(|other| *other == finding);
        let matching = equal.or_else(|| left.iter().position(|other| self::shape(other) == shape));
        differences.push(match matching.map(|index| left.remove(index)) {
            None => Difference::OnlyFirst(finding.clone()),
            Some(other) if other == finding => Difference::Same(finding.clone()),
            Some(other) => Difference::Changed {
                first: finding.clone(),
                second: other.clone(),
            },
        });
    }
    differences.extend(left.into_iter().cloned().map(Difference::OnlySecond));
    differences.sort_by_key(|difference| match difference {
        Difference::OnlyFirst(_) => 0,
        Difference::OnlySecond(_) => 1,
        Difference::Changed { .. } => 2,
        Difference::Same(_) => 3,
    });
    differences
}

/// A finding without its numbers, so that the same words about other counts are the same finding.
fn shape(finding: &str) -> String {
    let mut shape = String::new();
    for c in finding.chars() {
        match c {
            '0'..='9' if shape.ends_with('0') => {}
            '0'..='9' => shape.push('0'),
            c => shape.push(c),
        }
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn what_only_the_sick_one_shows_comes_first_and_counts_are_told_side_by_side() {
        let sick = findings(&["16 threads: 2 BLOCKED", "1 deadlock: a, b", "heap is G1"]);
        let healthy = findings(&["heap is G1", "4 threads: 0 BLOCKED", "queue is long"]);
        assert_eq!(
            compare(&sick, &healthy),
            [
                Difference::OnlyFirst("1 deadlock: a, b".into()),
                Difference::OnlySecond("queue is long".into()),
                Difference::Changed {
                    first: "16 threads: 2 BLOCKED".into(),
                    second: "4 threads: 0 BLOCKED".into(),
                },
                Difference::Same("heap is G1".into()),
            ]
        );
        assert!(compare(&[], &[]).is_empty());
    }

    #[test]
    fn each_finding_is_paired_once() {
        let twice = findings(&["1 x", "2 x"]);
        assert_eq!(
            compare(&twice, &findings(&["2 x"])),
            [
                Difference::OnlyFirst("2 x".into()),
                Difference::Changed {
                    first: "1 x".into(),
                    second: "2 x".into()
                }
            ]
        );
    }
}
