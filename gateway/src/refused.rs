//! The lines of a body that make no sense: all are counted, the first ones are named.

use serde::Serialize;
use utoipa::ToSchema;

/// How many of them are named.
const MOST_NAMED: usize = 100;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct InvalidLine {
    /// Which line of the body, from 1.
    pub line: u32,
    /// What is wrong with it.
    pub error: String,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// How many there are.
    pub count: u32,
    /// The first of them.
    pub named: Vec<InvalidLine>,
}

impl Refused {
    /// Notes the line `number`.
    pub fn note(&mut self, number: u32, error: impl Into<String>) {
        self.count += 1;
        if self.named.len() < MOST_NAMED {
            self.named.push(InvalidLine { line: number, error: error.into() });
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_a_hundred_named() {
        let mut refused = Refused::default();
        assert!(refused.is_empty());
        for number in 1..=150 {
            refused.note(number, "no");
        }
        assert_eq!((refused.count, refused.named.len()), (150, 100));
        assert_eq!(refused.named[99], InvalidLine { line: 100, error: "no".to_owned() });
    }
}
