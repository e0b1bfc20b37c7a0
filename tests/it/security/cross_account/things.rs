//! What accounts have: messages, batches, endpoints and deliveries, in every state that somebody else could see.

use std::{cell::RefCell, collections::BTreeMap};

use reqwest::Method;
use serde_json::{Value, json};
use tests::{
    answer::Answer,
    batch::{BATCHES, LINES, line},
    caller::Caller,
    operation::Operation,
    patience::until,
    stack::Stack,
};

use super::Names;

const MESSAGES: &str = "/api/v1/messages";
const ENDPOINTS: &str = "/api/v1/webhook-endpoints";
/// Public, and never called: no worker runs when there are deliveries.
const URL: &str = "https://93.184.215.14/hook";

/// A kind of thing that has an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    Message,
    Batch,
    Endpoint,
    Delivery,
}

impl Thing {
    /// The code of the answer that there is none of this id.
    pub fn unknown(self) -> &'static str {
        match self {
            Self::Message => "message_not_found",
            Self::Batch => "batch_not_found",
            Self::Endpoint => "endpoint_not_found",
            Self::Delivery => "delivery_not_found",
        }
    }
}

/// An account with what it has.
pub struct Owner {
    pub caller: Caller,
    agent: String,
    pub removed_agent: String,
    /// Finished ones, each for one use.
    finished: RefCell<BTreeMap<Thing, Vec<String>>>,
    purged: RefCell<Option<String>>,
    deleted: RefCell<Option<(String, String)>>,
}

/// The ids of all that another account has.
pub struct Foreign {
    things: BTreeMap<Thing, Vec<String>>,
    pub agents: Vec<String>,
}

impl Owner {
    pub fn first(stack: &Stack) -> Self {
        Self::new(stack, &stack.account, &stack.agent, &stack.key)
    }

    pub fn new(stack: &Stack, account: &str, agent: &str, key: &str) -> Self {
        stack.admin(&["channel", "on", account, "webhooks"]);
        let removed_agent = stack.make_agent(account, &json!({ "name": "Gone", "model": "demo", "provider": "demo" }));
        stack.admin(&["agent", "remove", &removed_agent]);
        Self {
            caller: Caller::of(stack).with_key(key),
            agent: agent.to_owned(),
            removed_agent,
            finished: RefCell::default(),
            purged: RefCell::default(),
            deleted: RefCell::default(),
        }
    }

    /// Makes a finished message or batch for each operation that names one, and what is deleted.
    pub async fn make_finished(&self, operations: &[Operation<'_>], known: &BTreeMap<&str, Names>) {
        let names = operations.iter().filter_map(|operation| known.get(operation.name()));
        for names in names {
            let (thing, id) = match names {
                Names::InPath(Thing::Message) => (Thing::Message, self.answered().await),
                Names::InPath(Thing::Batch) => (Thing::Batch, self.ended_batch().await),
                _ => continue,
            };
            self.finished.borrow_mut().entry(thing).or_default().push(id);
        }
        self.purged.replace(Some(self.purged_message().await));
        self.deleted.replace(Some(self.deleted_endpoint().await));
    }

    /// All kinds of things in all states that last, the last of them while no worker runs.
    pub async fn make_foreign(&self, stack: &mut Stack) -> Foreign {
        let answered = self.answered().await;
        let purged = self.purged_message().await;
        let ended = self.ended_batch().await;
        let running = self.submitted("/sleep 300s").await;
        self.until(&running, "in_progress").await;
        stack.kill_workers();
        let queued = self.submitted("hello").await;
        let enqueued = self.batch().await;
        let endpoint = self.endpoint().await;
        let delivery = self.delivery(&endpoint).await;
        let deleted = self.deleted_endpoint().await;
        let written = |id: &str| [id.to_owned(), id.to_uppercase(), id.replace('-', "")];
        let with = |id: &str, more: Vec<String>| written(id).into_iter().chain(more).collect();
        let things = BTreeMap::from([
            (Thing::Message, with(&answered, vec![purged, running, queued])),
            (Thing::Batch, with(&ended, vec![enqueued])),
            (Thing::Endpoint, with(&endpoint, vec![deleted.0])),
            (Thing::Delivery, with(&delivery, vec![deleted.1])),
        ]);
        Foreign { things, agents: vec![self.agent.clone(), self.removed_agent.clone()] }
    }

    /// One of its own that can be used.
    pub async fn take(&self, thing: Thing) -> String {
        match thing {
            Thing::Endpoint => self.endpoint().await,
            Thing::Delivery => self.delivery(&self.endpoint().await).await,
            _ => self.finished.borrow_mut().get_mut(&thing).and_then(Vec::pop).expect("one for each operation"),
        }
    }

    /// One of its own that is gone. Batches stay.
    pub fn gone(&self, thing: Thing) -> Option<String> {
        match thing {
            Thing::Message => self.purged.borrow().clone(),
            Thing::Batch => None,
            Thing::Endpoint => self.deleted.borrow().as_ref().map(|deleted| deleted.0.clone()),
            Thing::Delivery => self.deleted.borrow().as_ref().map(|deleted| deleted.1.clone()),
        }
    }

    async fn submitted(&self, prompt: &str) -> String {
        let body = json!({ "employee_id": self.agent, "prompt": prompt }).to_string();
        let answer = self.caller.post(MESSAGES, body).await;
        assert_eq!(answer.status, 202, "{answer}");
        text(&answer, "message_id")
    }

    async fn answered(&self) -> String {
        let id = self.submitted("hello").await;
        self.until(&id, "completed").await;
        id
    }

    async fn until(&self, id: &str, status: &str) {
        until(&format!("{id} is {status}"), async || {
            let message = self.caller.get(&format!("{MESSAGES}/{id}")).await.ok();
            (message["status"] == status).then_some(())
        })
        .await;
    }

    async fn purged_message(&self) -> String {
        let id = self.answered().await;
        assert_eq!(self.act(Method::DELETE, &format!("{MESSAGES}/{id}")).await.status, 204);
        id
    }

    async fn batch(&self) -> String {
        let request = self.caller.request(Method::POST, BATCHES).header("content-type", LINES);
        let answer = Answer::to(request.body(line("one", &self.agent, "hello"))).await;
        assert_eq!(answer.status, 202, "{answer}");
        text(&answer, "batch_id")
    }

    async fn ended_batch(&self) -> String {
        let id = self.batch().await;
        until("the batch ends", async || {
            let batch = self.caller.get(&format!("{BATCHES}/{id}")).await.ok();
            (batch["status"] == "completed").then_some(())
        })
        .await;
        id
    }

    async fn endpoint(&self) -> String {
        let answer = self.caller.post(ENDPOINTS, json!({ "url": URL }).to_string()).await;
        assert_eq!(answer.status, 201, "{answer}");
        text(&answer, "id")
    }

    async fn delivery(&self, endpoint: &str) -> String {
        let answer = self.act(Method::POST, &format!("{ENDPOINTS}/{endpoint}/test")).await;
        assert_eq!(answer.status, 202, "{answer}");
        text(&answer, "id")
    }

    /// An endpoint that is gone, and a delivery that went to it.
    async fn deleted_endpoint(&self) -> (String, String) {
        let endpoint = self.endpoint().await;
        let delivery = self.delivery(&endpoint).await;
        assert_eq!(self.act(Method::DELETE, &format!("{ENDPOINTS}/{endpoint}")).await.status, 204);
        (endpoint, delivery)
    }

    async fn act(&self, method: Method, path: &str) -> Answer {
        Answer::to(self.caller.request(method, path)).await
    }
}

impl Foreign {
    /// Those of one kind; the first one three times, as ids can be written.
    pub fn ids(&self, thing: Thing) -> &[String] {
        &self.things[&thing]
    }

    /// All ids.
    pub fn all(&self) -> impl Iterator<Item = &String> {
        self.things.values().flatten().chain(&self.agents)
    }

    /// All of it, as its owner sees it.
    pub async fn as_seen_by(&self, owner: &Owner) -> Vec<(u16, Value)> {
        let mut seen = Vec::new();
        let places = [(Thing::Message, MESSAGES), (Thing::Batch, BATCHES), (Thing::Endpoint, ENDPOINTS)];
        for (thing, place) in places {
            for id in self.ids(thing) {
                let answer = owner.caller.get(&format!("{place}/{id}")).await;
                let fault = answer.status == 404;
                seen.push((answer.status, if fault { Value::Null } else { answer.json() }));
            }
        }
        for path in [ENDPOINTS, &format!("{ENDPOINTS}/{}/deliveries", self.ids(Thing::Endpoint)[0])] {
            seen.push((200, owner.caller.get(path).await.ok()));
        }
        seen
    }
}

fn text(answer: &Answer, name: &str) -> String {
    answer.json()[name].as_str().unwrap_or_else(|| panic!("no {name}: {answer}")).to_owned()
}
