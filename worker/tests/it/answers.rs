//! Good answers, in all the shapes in which they come.

use std::time::Duration;

use common::domain::message::Usage;
use serde_json::json;
use tests::model::{Behaviour, Ending, ModelServer};

use crate::support::{KEY, LIMITS, ask, ask_one_that, openai};

const TEXT: [&str; 4] = ["Grüße ", "aus\n", "", "Köln 🎭"];
const WHOLE: &str = "Grüße aus\nKöln 🎭";

fn answer() -> Behaviour {
    Behaviour::answer(TEXT)
}

fn reported(input_tokens: u32, output_tokens: u32) -> Option<Usage> {
    Some(Usage { input_tokens, output_tokens, estimated: false })
}

#[tokio::test]
async fn a_call_asks_for_a_stream_with_usage_and_carries_the_key() {
    let server = ModelServer::start().await.expect("a model server");
    let (said, end) = ask(&openai(&server.url())).await;
    assert_eq!(said, ["a ", "secret ", "prompt"]);
    assert_eq!(end.expect("an echo").model, "scripted-1");
    let call = server.calls().pop().expect("one call");
    assert_eq!(call.path, "/v1/chat/completions");
    assert_eq!(call.header("authorization"), Some(format!("Bearer {KEY}").as_str()));
    let expected = json!({
        "model": "m", "stream": true, "stream_options": {"include_usage": true}, "temperature": 0.5, "max_tokens": 9,
        "messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "a secret prompt"}],
    });
    assert_eq!(call.body, expected);
}

#[tokio::test]
async fn every_good_shape_gives_the_same_answer() {
    let shapes = [
        ("plain stream", answer()),
        ("one byte at a time", answer().in_pieces(1)),
        ("with keep-alives", answer().with_keep_alives()),
        ("CRLF", answer().line_ends("\r\n").in_pieces(1)),
        ("CR", answer().line_ends("\r").in_pieces(1)),
        ("CR, in one piece", answer().line_ends("\r").in_pieces(100_000)),
        ("byte order mark", answer().with_byte_order_mark()),
        ("byte order mark, one byte at a time", answer().with_byte_order_mark().in_pieces(1)),
        ("no [DONE]", answer().marks(true, false)),
        ("no finish_reason", answer().marks(false, true)),
        ("called plain text", answer().content_type("text/plain")),
        ("called JSON", answer().content_type("application/json")),
        ("a plain completion", Behaviour::plain(WHOLE)),
        ("a plain completion called a stream", Behaviour::page(200, "text/event-stream", plain_completion())),
    ];
    for (shape, behaviour) in shapes {
        let (said, end) = ask_one_that(behaviour).await;
        assert_eq!(said.concat(), WHOLE, "{shape}");
        let completion = end.unwrap_or_else(|error| panic!("{shape}: {error}"));
        assert_eq!((completion.model.as_str(), completion.usage), ("scripted-1", reported(7, 3)), "{shape}");
    }
}

#[tokio::test]
async fn a_stream_may_be_cut_at_any_byte() {
    let server = ModelServer::start().await.expect("a model server");
    let provider = openai(&server.url());
    for (end, behaviour) in [("LF", answer()), ("CRLF", answer().line_ends("\r\n").with_keep_alives())] {
        for at in 0..=behaviour.stream_len() {
            server.script(behaviour.clone().split_at(at));
            let (said, completion) = ask(&provider).await;
            assert_eq!(said.concat(), WHOLE, "{end}, cut at {at}");
            assert_eq!(completion.expect("a good stream").usage, reported(7, 3), "{end}, cut at {at}");
        }
    }
}

#[tokio::test]
async fn a_missing_usage_is_no_failure() {
    for behaviour in [answer().usage(None), answer().usage(Some((0, 0)))] {
        let (said, end) = ask_one_that(behaviour).await;
        assert_eq!(said.concat(), WHOLE);
        assert_eq!(end.expect("a good stream").usage, None);
    }
}

#[tokio::test]
async fn text_leaves_as_it_is_made() {
    let server = ModelServer::start().await.expect("a model server");
    server.script(Behaviour::answer(["a", "b"]).ending(Ending::Hang));
    let (said, _) = ask(&openai(&server.url())).await;
    assert_eq!(said, ["a", "b"], "both pieces had to leave before the end");
}

#[tokio::test]
async fn a_slow_stream_is_alive_as_long_as_bytes_come() {
    let pace = LIMITS.idle / 2;
    let (said, end) = ask_one_that(answer().paced(pace)).await;
    assert_eq!(said.concat(), WHOLE);
    end.expect("each pause was shorter than the limit");
}

#[tokio::test]
async fn after_the_finish_mark_only_the_usage_can_be_lost() {
    let finished = concat!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"all\"},\"finish_reason\":\"length\"}]}\n\n",
    );
    for rest in ["", "data: {\"cut", "data: garbage\n\n", "data: {\"error\":{\"message\":\"late\"}}\n\n"] {
        let (said, end) = ask_one_that(Behaviour::raw(format!("{finished}{rest}"))).await;
        assert_eq!(said, ["all"], "{rest}");
        let completion = end.unwrap_or_else(|error| panic!("{rest}: {error}"));
        assert_eq!((completion.model.as_str(), completion.usage), ("m", None), "{rest}");
    }
}

#[tokio::test]
async fn choices_without_an_index_and_reasoning_are_understood() {
    let body = concat!(
        ": OPENROUTER PROCESSING\n\n",
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"reasoning_content\":\"hm\"}}],\"usage\":null}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"yes\",\"reasoning\":null}}]}\n\n",
        "event: ping\ndata:\n\n",
        "data: {\"model\":\"other\",\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\n",
        "data:[DONE]\n\n",
    );
    let (said, end) = ask_one_that(Behaviour::page(200, "text/event-stream", body)).await;
    assert_eq!(said, ["yes"]);
    let completion = end.expect("a good stream");
    assert_eq!((completion.model.as_str(), completion.usage), ("other", reported(1, 2)));
}

#[tokio::test]
async fn a_dropped_call_closes_its_connection() {
    let server = ModelServer::start().await.expect("a model server");
    server.script(Behaviour::answer(["a"]).ending(Ending::Hang));
    let provider = openai(&server.url());
    let dropped = tokio::time::timeout(Duration::from_millis(100), ask(&provider)).await;
    assert!(dropped.is_err(), "the call was to hang");
    tokio::time::timeout(Duration::from_secs(2), server.hung_up(1)).await.expect("the server was to notice");
}

fn plain_completion() -> String {
    json!({
        "model": "scripted-1", "usage": {"prompt_tokens": 7, "completion_tokens": 3},
        "choices": [{"message": {"content": WHOLE}}],
    })
    .to_string()
}
