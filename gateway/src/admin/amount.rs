//! Amounts of credits as people write them: decimals, kept exactly as whole micro-credits.

use std::{fmt, str::FromStr};

use common::domain::account::MicroCredits;

const MICROS_PER_CREDIT: MicroCredits = 1_000_000;
/// Balances are 64-bit sums: one grant may not come near their end.
const MOST_CREDITS: MicroCredits = 1_000_000_000;
const FRACTION_DIGITS: usize = 6;

/// An amount of credits: at most a billion either way, with up to six decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount(pub MicroCredits);

/// A text that is no amount.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Not of the form `-12.345678`.
    #[error("give credits as a decimal number such as 12.5 or -0.25")]
    Malformed,
    /// Finer than a micro-credit.
    #[error("at most {FRACTION_DIGITS} decimals")]
    TooFine,
    /// Beyond a billion credits.
    #[error("at most {MOST_CREDITS} credits at once")]
    TooLarge,
}

impl FromStr for Amount {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(w, f)| (w, Some(f)));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !is_number(whole) || fraction.is_some_and(|fraction| !is_number(fraction)) {
            return Err(AmountError::Malformed);
        }
        let fraction = fraction.unwrap_or_default();
        if fraction.len() > FRACTION_DIGITS {
            return Err(AmountError::TooFine);
        }
        let credits: MicroCredits = whole.parse().map_err(|_| AmountError::TooLarge)?;
        let micros: MicroCredits =
            format!("{fraction:0<FRACTION_DIGITS$}").parse().map_err(|_| AmountError::Malformed)?;
        if credits > MOST_CREDITS || (credits == MOST_CREDITS && micros > 0) {
            return Err(AmountError::TooLarge);
        }
        let total = credits * MICROS_PER_CREDIT + micros;
        Ok(Self(if negative { -total } else { total }))
    }
}

impl fmt::Display for Amount {
    /// Without trailing zeros: `12.5`, `-0.000001`, `3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.unsigned_abs();
        let per_credit = MICROS_PER_CREDIT.unsigned_abs();
        let sign = if self.0 < 0 { "-" } else { "" };
        let text = format!("{sign}{}.{:0FRACTION_DIGITS$}", micros / per_credit, micros % per_credit);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact() {
        for (text, micros) in [
            ("0", 0),
            ("1", 1_000_000),
            ("12.5", 12_500_000),
            ("-0.25", -250_000),
            ("0.000001", 1),
            ("0.1", 100_000),
            ("8.299999", 8_299_999),
            ("1000000000", 1_000_000_000_000_000),
            ("-1000000000.000000", -1_000_000_000_000_000),
        ] {
            assert_eq!(text.parse(), Ok(Amount(micros)), "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in ["", "-", ".", "1.", ".5", "+1", "--1", "1e3", "1,5", "1_000", " 1", "0x10", "NaN", "inf", "١"] {
            assert_eq!(text.parse::<Amount>(), Err(AmountError::Malformed), "{text}");
        }
        assert_eq!("0.0000001".parse::<Amount>(), Err(AmountError::TooFine));
        for text in ["1000000000.000001", "1000000001", "99999999999999999999999999"] {
            assert_eq!(text.parse::<Amount>(), Err(AmountError::TooLarge), "{text}");
        }
    }

    #[test]
    fn amounts_print_as_they_are_read() {
        for (micros, text) in
            [(0, "0"), (10_000_000, "10"), (12_500_000, "12.5"), (-1, "-0.000001"), (i64::MIN, "-9223372036854.775808")]
        {
            assert_eq!(Amount(micros).to_string(), text);
        }
    }
}
