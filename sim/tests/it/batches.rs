//! Batches in the database: whatever ends how often and when, what is counted is what ended, and the end is told once.

mod acts;
mod model;
mod moves;

use common::{
    domain::{
        batch::BatchStatus,
        endpoint::Endpoint,
        event::EventKind,
        ids::{AccountId, BatchId},
    },
    store::{connection::Store, endpoints::EndpointSpec},
};
use sim::{check, proptest::prelude::*};

use self::{
    acts::{Act, act},
    model::Model,
};
use crate::database::Database;

/// A case: how many lines, what one costs, whether somebody is told of the end, and whether its caller can resume it.
#[derive(Clone, Copy, Debug)]
struct Form {
    lines: u32,
    price: i64,
    notifies: bool,
    keyed: bool,
}

fn form() -> impl Strategy<Value = Form> {
    let price = prop_oneof![Just(0_i64), Just(1_i64)];
    (1_u32..7, price, any::<bool>(), any::<bool>()).prop_map(|(lines, price, notifies, keyed)| Form {
        lines,
        price,
        notifies,
        keyed,
    })
}

#[test]
fn a_batch_counts_each_line_once_and_ends_once() {
    let case = (form(), prop::collection::vec(act(), 1..30));
    let database = Database::new();
    check(file!(), "batch counters", 400, case, |(form, acts)| database.run(|store| play(store, form, acts)));
}

async fn play(store: Store, form: Form, acts: Vec<Act>) {
    let account = store.create_account(&BatchId::new().to_string(), "desk@example.com").await.expect("an account").id;
    let endpoint = listener(&store, account).await;
    let mut model = Model::open(&store, account, form).await;
    for act in acts {
        model.act(act).await;
        model.agrees().await;
    }
    model.end_all().await;
    model.agrees().await;
    let batch = model.look().await;
    assert!(batch.status.is_terminal() && batch.counts.unfinished() == 0, "{batch:?}");
    assert!(batch.completed_at.is_some());
    let told = store.deliveries(account, endpoint.id, None, 99).await.expect("the log");
    let told: Vec<_> = told.iter().filter(|(delivery, _)| delivery.batch == Some(batch.id)).collect();
    let kind =
        if batch.status == BatchStatus::Completed { EventKind::BatchCompleted } else { EventKind::BatchCancelled };
    assert_eq!(told.len(), usize::from(form.notifies), "the end is told once to who wants it");
    assert!(told.iter().all(|(delivery, _)| delivery.event == kind));
    model.retry_what_was_not_answered().await;
}

async fn listener(store: &Store, account: AccountId) -> Endpoint {
    let spec = EndpointSpec { url: "https://example.com/hook".to_owned(), events: Vec::new(), enabled: true };
    store.create_endpoint(account, &spec, 9).await.expect("an endpoint")
}
