//! HotSpot class histograms (`GC.class_histogram`): the classes with the most bytes, and the sum.

use crate::{Analyzer, counted};

/// Classes that are named.
const TOP: usize = 3;

/// Reads one histogram; HotSpot sorts it by bytes.
#[derive(Debug, Default)]
pub struct Histogram {
    top: Vec<(u64, u64, String)>,
    total: Option<(u64, u64)>,
}

impl Analyzer for Histogram {
    fn line(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        let mut number = || words.next()?.parse::<u64>().ok();
        let (Some(instances), Some(bytes)) = (number(), number()) else {
            return;
        };
        if first == "Total" {
            self.total = Some((instances, bytes));
        } else if first.strip_suffix(':').is_some_and(|rank| rank.parse::<u32>().is_ok())
            && self.top.len() < TOP
            && let Some(class) = words.next()
        {
            self.top.push((bytes, instances, class.to_owned()));
        }
    }

    fn findings(&self) -> Vec<String> {
        let share = |bytes: u64| match self.total {
            Some((_, total)) if total > 0 => format!(" ({} % of the heap's objects)", bytes * 100 / total),
            _ => String::new(),
        };
        let classes = self.top.iter().map(|(bytes, instances, class)| {
            let size = binary(*bytes);
            format!("{class}: {size} in {}{}", objects(*instances), share(*bytes))
        });
        let total = self
            .total
            .map(|(instances, bytes)| format!("{} in {} in all", binary(bytes), objects(instances)));
        total.into_iter().chain(classes).collect()
    }
}

fn objects(count: u64) -> String {
    counted(usize::try_from(count).unwrap_or(usize::MAX), "object")
}

/// Whole MiB, and KiB below one.
fn binary(bytes: u64) -> String {
    match bytes >> 20 {
        0 => format!("{} KiB", bytes.div_ceil(1024)),
        mib => format!("{mib} MiB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Lines;

    #[test]
    fn the_largest_classes_are_named_with_their_share() {
        let text = " num     #instances         #bytes  class name (module)\n\
            -------------------------------------------------------\n\
            \x20  1:          1000       10485760  [B (java.base@17.0.15)\n\
            \x20  2:           500        5242880  java.lang.String (java.base@17.0.15)\n\
            \x20  3:             1           1500  [I (java.base@17.0.15)\n\
            Total          1501       15730140\n";
        let mut lines = Lines::new(Histogram::default());
        lines.push(text.as_bytes());
        assert_eq!(
            lines.finish(),
            [
                "15 MiB in 1501 objects in all",
                "[B: 10 MiB in 1000 objects (66 % of the heap's objects)",
                "java.lang.String: 5 MiB in 500 objects (33 % of the heap's objects)",
                "[I: 2 KiB in 1 object (0 % of the heap's objects)",
            ]
        );
    }
}
