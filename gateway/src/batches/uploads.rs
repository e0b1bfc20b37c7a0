//! How many bodies of batches an account may send at a time: each takes up to 200 MB of the disk until it was judged.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use common::domain::ids::AccountId;

/// The most of one account at one gateway.
const MOST: u32 = 8;

/// The bodies that come in at this gateway. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Uploads(Arc<Mutex<HashMap<AccountId, u32>>>);

/// One body that comes in. Dropping it makes room for another.
#[derive(Debug)]
pub struct Upload {
    account: AccountId,
    uploads: Uploads,
}

impl Uploads {
    /// Counts one of `account`; `None` when it sends as many as it may.
    pub fn begin(&self, account: AccountId) -> Option<Upload> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(account).or_default();
        if *count >= MOST {
            return None;
        }
        *count += 1;
        Some(Upload { account, uploads: self.clone() })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let mut counts = self.uploads.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.account) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_sends_so_many_at_a_time() {
        let uploads = Uploads::default();
        let account = AccountId::new();
        let mut held: Vec<_> = (0..MOST).map(|_| uploads.begin(account).expect("room")).collect();
        assert!(uploads.begin(account).is_none());
        drop(uploads.begin(AccountId::new()).expect("each has its own"));
        held.pop();
        held.push(uploads.begin(account).expect("room"));
        drop(held);
        assert!(uploads.0.lock().expect("a map").is_empty(), "nothing is kept of who has left");
    }
}
