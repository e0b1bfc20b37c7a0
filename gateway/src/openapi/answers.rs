//! What every route answers apart from its own success: the errors of its steps, and the headers that all answers have.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::openapi::{
    Content, Header, ObjectBuilder, Ref, RefOr, Response, Responses, SecurityRequirement,
    example::{Example, ExampleBuilder},
    path::{Operation, PathItem},
    schema::Type,
};
use utoipa_axum::router::UtoipaMethodRouter;

use super::{
    document::{API_KEY, BEARER, RATE_LIMIT, RATE_LIMIT_POLICY, REQUEST_ID, header_ref},
    parameters, samples,
    step::Step,
};
use crate::{error::ApiError, fault::Fault, state::AppState};

/// The routes of one handler, described with the refusals of the steps that its requests pass.
pub fn passing(
    steps: &[Step],
    (schemas, mut paths, router): UtoipaMethodRouter<AppState>,
) -> UtoipaMethodRouter<AppState> {
    for operation in paths.paths.values_mut().flat_map(operations) {
        describe(operation, steps);
    }
    (schemas, paths, router)
}

/// The operations of a path.
fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, patch, delete, .. } = item;
    [get, put, post, patch, delete].into_iter().flatten()
}

fn describe(operation: &mut Operation, steps: &[Step]) {
    let needs_key = steps.iter().any(|step| matches!(step, Step::Gate(_)));
    let none: [&str; 0] = [];
    operation.security = Some(match needs_key {
        true => [BEARER, API_KEY].map(|name| SecurityRequirement::new(name, none)).into(),
        false => Vec::new(),
    });
    parameters::describe(operation, steps);
    let refusals = [Step::Any].iter().chain(steps).flat_map(|step| step.refusals());
    add_refusals(&mut operation.responses, refusals);
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        response.headers.insert("X-Request-Id".to_owned(), header_ref(REQUEST_ID));
        // Who has no valid key has no limit either.
        if needs_key && status != "401" {
            response.headers.insert("RateLimit".to_owned(), header_ref(RATE_LIMIT));
            response.headers.insert("RateLimit-Policy".to_owned(), header_ref(RATE_LIMIT_POLICY));
        }
    }
}

/// One response a status, with an example for each code that it can have.
fn add_refusals(responses: &mut Responses, refusals: impl Iterator<Item = ApiError>) {
    let mut by_status: BTreeMap<u16, Vec<Fault>> = BTreeMap::new();
    for fault in refusals.map(ApiError::into_fault) {
        let faults = by_status.entry(fault.http_status().as_u16()).or_default();
        if faults.iter().all(|known| known.code() != fault.code()) {
            faults.push(fault);
        }
    }
    for (status, faults) in by_status {
        responses.responses.insert(status.to_string(), RefOr::T(refusal(&faults)));
    }
}

fn refusal(faults: &[Fault]) -> Response {
    let lines: Vec<_> = faults.iter().map(|fault| format!("`{}`: {}", fault.code(), fault.sentence())).collect();
    let mut response = Response::new(lines.join("\n\n"));
    for (media_type, schema, as_problem) in
        [("application/json", "Error", false), ("application/problem+json", "Problem", true)]
    {
        let mut content = Content::new(Some(Ref::from_schema_name(schema)));
        content.examples = faults.iter().map(|fault| example(fault, as_problem)).collect();
        response.content.insert(media_type.to_owned(), RefOr::T(content));
    }
    for (name, value) in faults.iter().flat_map(Fault::headers) {
        let mut header = Header::new(ObjectBuilder::new().schema_type(Type::String));
        header.example = value.to_str().ok().map(Value::from);
        response.headers.insert(canonical(name.as_str()), RefOr::T(header));
    }
    response
}

fn example(fault: &Fault, as_problem: bool) -> (String, RefOr<Example>) {
    let body = fault.body(samples::REQUEST, as_problem).ok().and_then(|body| serde_json::from_slice(&body).ok());
    (fault.code().to_owned(), RefOr::T(ExampleBuilder::new().value(body).build()))
}

/// `retry-after` as people write it.
fn canonical(name: &str) -> String {
    let words = name.split('-').map(|word| match word {
        "www" => "WWW".to_owned(),
        word => word.chars().enumerate().map(|(at, c)| if at == 0 { c.to_ascii_uppercase() } else { c }).collect(),
    });
    words.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_written_as_people_write_them() {
        assert_eq!(canonical("retry-after"), "Retry-After");
        assert_eq!(canonical("www-authenticate"), "WWW-Authenticate");
    }

    #[test]
    fn one_response_a_status_holds_all_its_codes() {
        let mut responses = Responses::new();
        add_refusals(
            &mut responses,
            [ApiError::Unauthorized, ApiError::RateLimited, ApiError::TooManyFailures].into_iter(),
        );
        let statuses: Vec<_> = responses.responses.keys().collect();
        assert_eq!(statuses, ["401", "429"]);
        let RefOr::T(limited) = &responses.responses["429"] else { panic!("a response") };
        let RefOr::T(content) = &limited.content["application/json"] else { panic!("a content") };
        assert_eq!(content.examples.keys().collect::<Vec<_>>(), ["rate_limited", "too_many_failures"]);
        assert!(limited.headers.contains_key("Retry-After"));
    }
}
