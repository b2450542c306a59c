//! An error with its causes, on one line.

use std::{error::Error, fmt};

/// Prints an error and its sources, joined by `: `. A cause that its parent's text already contains is printed once, since
/// some libraries repeat their source in `Display`.
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = self.0.to_string();
        f.write_str(&last)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !last.contains(&text) {
                write!(f, ": {text}")?;
                last = text;
            }
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Sample {
        #[error("open the file")]
        Outer(#[source] Box<Sample>),
        #[error("disk full")]
        Inner,
        #[error("write: disk full")]
        Repeating(#[source] Box<Sample>),
    }

    #[test]
    fn causes_are_joined_and_not_repeated() {
        let error = Sample::Outer(Box::new(Sample::Repeating(Box::new(Sample::Inner))));
        assert_eq!(Chain(&error).to_string(), "open the file: write: disk full");
    }
}
