//! What operators may call things.

use common::domain::ids::AccountId;

use super::error::AdminError;

const LONGEST_NAME: usize = 100;
/// RFC 5321 allows no longer path.
const LONGEST_EMAIL: usize = 254;
const LONGEST_NOTE: usize = 500;

/// Says what is wrong with `name`, if something is: 1 to 100 characters, no control characters, no blank ends.
pub fn fault_in_name(name: &str) -> Option<&'static str> {
    if name.trim().is_empty() {
        return Some("must not be empty");
    }
    if name.chars().count() > LONGEST_NAME {
        return Some("must have at most 100 characters");
    }
    if name.chars().any(char::is_control) {
        return Some("must not hold control characters");
    }
    (name.trim() != name).then_some("must not begin or end with a space")
}

/// Refuses a name that breaks the rules.
pub fn check_name(name: &str) -> Result<(), AdminError> {
    fault_in_name(name).map_or(Ok(()), |fault| Err(AdminError::Refused(format!("the name {fault}"))))
}

/// Refuses what no account can be called. Accounts are looked up by name or id, so a name that reads as an id
/// could hide another account.
pub fn check_account_name(name: &str) -> Result<(), AdminError> {
    check_name(name)?;
    if name.parse::<AccountId>().is_ok() {
        return Err(AdminError::Refused("the name must not look like an id".to_owned()));
    }
    Ok(())
}

/// Refuses what cannot be an e-mail address. Whether it is one, only its verification shows.
pub fn check_email(email: &str) -> Result<(), AdminError> {
    let is_plausible = email.len() <= LONGEST_EMAIL
        && !email.chars().any(|c| c.is_control() || c.is_whitespace())
        && email.rsplit_once('@').is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty());
    if is_plausible { Ok(()) } else { Err(AdminError::Refused(format!("`{email}` is no e-mail address"))) }
}

/// Refuses a note that is too long or cannot be shown.
pub fn check_note(note: &str) -> Result<(), AdminError> {
    if note.chars().count() > LONGEST_NOTE || note.chars().any(char::is_control) {
        return Err(AdminError::Refused(
            "a note has at most 500 characters, none of them control characters".to_owned(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_printable() {
        for good in ["a", "Acme & Söhne", "x y", &"ä".repeat(100)] {
            assert_eq!(fault_in_name(good), None, "{good}");
        }
        for bad in ["", " ", " a", "a ", "a\nb", "a\0b", "\u{7f}", "a\u{1b}[2J", &"ä".repeat(101)] {
            assert!(fault_in_name(bad).is_some(), "{bad:?}");
        }
        assert!(check_account_name("0190b5a0-0000-7000-8000-000000000000").is_err());
    }

    #[test]
    fn addresses_have_two_sides() {
        for good in ["a@b", "first.last+tag@example.org", "\"odd@local\"@example.org"] {
            check_email(good).unwrap_or_else(|error| panic!("{good}: {error}"));
        }
        for bad in ["", "@", "a@", "@b", "ab", "a b@c", "a@b\n", &format!("{}@example.org", "a".repeat(250))] {
            assert!(check_email(bad).is_err(), "{bad:?}");
        }
    }
}
