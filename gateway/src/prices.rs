//! What models cost, and who can afford a call.

use std::{collections::HashMap, str::FromStr};

use common::domain::{account::MicroCredits, job::Price};

/// The prices of models, as `FRONTDESK_PRICES` gives them: `model=input:output,…` in micro-credits per 1,000 tokens;
/// `*` stands for every model that is not named. A model without a price is free.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prices {
    by_model: HashMap<String, Price>,
    others: Price,
}

impl Prices {
    /// What `model` costs.
    pub fn of(&self, model: &str) -> Price {
        self.by_model.get(model).copied().unwrap_or(self.others)
    }
}

/// Whether a call at `price` may begin with this balance.
pub fn is_affordable(price: Price, balance: MicroCredits) -> bool {
    price.is_free() || balance > 0
}

/// A price list that makes no sense.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no price; write model=input:output, in micro-credits per 1,000 tokens, neither below 0")]
pub struct NoPrice(String);

impl FromStr for Prices {
    type Err = NoPrice;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut prices = Self::default();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let (model, price) = entry_of(entry).ok_or_else(|| NoPrice(entry.to_owned()))?;
            match model {
                "*" => prices.others = price,
                _ => {
                    prices.by_model.insert(model.to_owned(), price);
                }
            }
        }
        Ok(prices)
    }
}

/// A model's name may hold colons and equals signs, as in `llama3:8b`: the price is what follows the last one.
fn entry_of(entry: &str) -> Option<(&str, Price)> {
    let (model, price) = entry.rsplit_once('=')?;
    let (input, output) = price.split_once(':')?;
    let price = Price { input: input.trim().parse().ok()?, output: output.trim().parse().ok()? };
    let model = model.trim();
    (!model.is_empty() && price.input >= 0 && price.output >= 0).then_some((model, price))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_model_has_its_price_and_the_others_theirs() {
        let prices: Prices = "llama3:8b=10:20, *=1:2,".parse().expect("prices");
        assert_eq!(prices.of("llama3:8b"), Price { input: 10, output: 20 });
        assert_eq!(prices.of("else"), Price { input: 1, output: 2 });
        assert!(Prices::default().of("else").is_free());
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["model", "model=1", "=1:2", "model=-1:2", "model=1:x", "a=1:2:3"] {
            assert!(text.parse::<Prices>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_what_costs_needs_a_balance() {
        let price = Price { input: 1, output: 0 };
        assert!(is_affordable(Price::default(), -5));
        assert!(is_affordable(price, 1));
        assert!(!is_affordable(price, 0));
    }
}
