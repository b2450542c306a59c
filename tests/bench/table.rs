//! What was measured, beside what was promised.

use std::fmt::Write as _;

/// One measurement.
#[derive(Debug)]
struct Row {
    what: String,
    measured: String,
    target: String,
    met: Option<bool>,
}

/// The one table that a benchmark prints.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Row>);

impl Table {
    /// Something that must stay at or below a number.
    pub(crate) fn at_most(&mut self, what: &str, measured: f64, limit: f64, unit: &str) {
        self.promise(what, measured, ("<=", limit), unit, measured <= limit);
    }

    /// Something that must reach a number.
    pub(crate) fn at_least(&mut self, what: &str, measured: f64, limit: f64, unit: &str) {
        self.promise(what, measured, (">=", limit), unit, measured >= limit);
    }

    /// Something that explains another row and has no promise of its own.
    pub(crate) fn note(&mut self, what: &str, measured: &str) {
        self.push(what, measured.to_owned(), String::new(), None);
    }

    /// A section that could not be measured, and why.
    pub(crate) fn not_run(&mut self, what: &str, why: &str) {
        self.push(what, format!("not run: {why}"), String::new(), None);
    }

    /// Whether promises were measured, and every one was kept.
    pub(crate) fn is_met(&self) -> bool {
        let mut promises = self.0.iter().filter_map(|row| row.met).peekable();
        promises.peek().is_some() && promises.all(|met| met)
    }

    fn promise(&mut self, what: &str, measured: f64, (sign, limit): (&str, f64), unit: &str, met: bool) {
        let target = format!("{sign} {limit} {unit}");
        self.push(what, format!("{measured:.2} {unit}"), target, Some(met));
    }

    fn push(&mut self, what: &str, measured: String, target: String, met: Option<bool>) {
        // Told at once as well: a benchmark that breaks off has still measured something.
        eprintln!("  {what}: {measured}");
        self.0.push(Row {
            what: what.to_owned(),
            measured,
            target,
            met,
        });
    }

    /// The table as Markdown.
    pub(crate) fn render(&self) -> String {
        let mut text = "| what | measured | promised | |\n| --- | --- | --- | --- |\n".to_owned();
        for row in &self.0 {
            let word = match row.met {
                Some(true) => "kept",
                Some(false) => "MISSED",
                None => "",
            };
            let Row {
                what, measured, target, ..
            } = row;
            writeln!(text, "| {what} | {measured} | {target} | {word} |").expect("a string takes every line");
        }
        text
    }
}

/// The middle of several measurements; none: not a number.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The middle with the extremes beside it, in milliseconds.
pub(crate) fn spread_ms(seconds: &[f64]) -> String {
    let (least, most) = seconds.iter().fold((f64::INFINITY, 0.0_f64), |(least, most), s| {
        (least.min(*s), most.max(*s))
    });
    format!(
        "{:.0} ms ({:.0} to {:.0}, n={})",
        median(seconds) * 1e3,
        least * 1e3,
        most * 1e3,
        seconds.len()
    )
}
