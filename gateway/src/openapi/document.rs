//! What stands around the routes: what the API is, how callers show who they are, the headers and shapes that all share.

use serde_json::Value;
use utoipa::{
    OpenApi,
    openapi::{
        Header, ObjectBuilder, Ref, RefOr,
        schema::{Components, Type},
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
        server::Server,
    },
};

use crate::fault;

/// The scheme of `Authorization: Bearer <key>`.
pub const BEARER: &str = "bearer";
/// The scheme of `X-API-Key: <key>`.
pub const API_KEY: &str = "api_key";
/// The component that describes `X-Request-Id`.
pub const REQUEST_ID: &str = "RequestId";
/// The component that describes `RateLimit`.
pub const RATE_LIMIT: &str = "RateLimit";
/// The component that describes `RateLimit-Policy`.
pub const RATE_LIMIT_POLICY: &str = "RateLimitPolicy";

const DESCRIPTION: &str = "\
Talk to AI agents from anything that can make an HTTP request.

**Keys.** Every route of `/api` needs one, as `Authorization: Bearer <key>` or as `X-API-Key: <key>`. The operator makes \
keys and switches an account's channels on.

**Errors** are `{\"error\": \"a sentence\", \"code\": \"snake_case\", \"request_id\": \"…\"}`, with more members where more is \
known. Who sends `Accept: application/problem+json` gets RFC 9457.

**Bodies** are JSON objects of at most 65,536 bytes; those of batches are lines of such. Unknown members are ignored, `null` is as good as absent, and the \
character U+0000 is refused.";

#[derive(OpenApi)]
#[openapi(
    info(title = "Frontdesk", description = DESCRIPTION, license(name = "Apache-2.0", identifier = "Apache-2.0")),
    components(schemas(fault::Plain, fault::Problem)),
    tags(
        (name = "chat", description = "A prompt in, the answer out."),
        (name = "messages", description = "Messages that nobody waits for, and what became of messages, whatever their channel."),
        (name = "batches", description = "Many requests in one body, run in the background, with results that can be read while it runs."),
        (name = "webhooks", description = "The Webhooks channel: submission in, ends of messages out."),
        (name = "agents", description = "The account's agents, and a chat with one of them, whole or as it is made."),
        (name = "probes", description = "For load balancers and people; only `/api/v1/health` needs a key."),
        (name = "reference", description = "This document, and a page that shows it."),
    )
)]
struct Frame;

/// The document without any route.
pub fn frame() -> utoipa::openapi::OpenApi {
    let mut document = Frame::openapi();
    document.servers = Some(vec![Server::new("/")]);
    let components = document.components.get_or_insert_with(Components::new);
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    components.add_security_scheme(BEARER, SecurityScheme::Http(bearer));
    let api_key = ApiKey::Header(ApiKeyValue::new("X-API-Key"));
    components.add_security_scheme(API_KEY, SecurityScheme::ApiKey(api_key));
    for (name, description, example) in [
        (REQUEST_ID, "Names this request: the caller's own `X-Request-Id`, or one of ours.", super::samples::REQUEST),
        (
            RATE_LIMIT,
            "How many requests are left to the key, and in how many seconds there are more.",
            "\"key\";r=87;t=23",
        ),
        (RATE_LIMIT_POLICY, "How many requests the key may make in how many seconds.", "\"key\";q=120;w=60"),
    ] {
        components.headers.insert(name.to_owned(), RefOr::T(header(description, example)));
    }
    document
}

/// A reference to the header that is described by the component `name`.
pub fn header_ref(name: &str) -> RefOr<Header> {
    RefOr::Ref(Ref::new(format!("#/components/headers/{name}")))
}

fn header(description: &str, example: &str) -> Header {
    let mut header = Header::new(ObjectBuilder::new().schema_type(Type::String));
    header.description = Some(description.to_owned());
    header.example = Some(Value::from(example));
    header
}
