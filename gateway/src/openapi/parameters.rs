//! The parameters that go with a step.

use serde_json::Value;
use utoipa::openapi::{
    ObjectBuilder, RefOr, Required,
    path::{Operation, Parameter, ParameterBuilder, ParameterIn},
    schema::Type,
};

use super::{samples, step::Step};

/// Adds to `operation` what its steps read in the head, and examples of the ids in its path.
pub fn describe(operation: &mut Operation, steps: &[Step]) {
    let parameters = operation.parameters.get_or_insert_with(Vec::new);
    if steps.contains(&Step::Repeat) || steps.contains(&Step::BatchRepeat) {
        parameters.push(RefOr::T(idempotency_key()));
    }
    for step in steps {
        let id = match step {
            Step::Message => samples::MESSAGE.to_string(),
            Step::Batch => samples::BATCH.to_string(),
            Step::Endpoint => samples::ENDPOINT.to_string(),
            Step::Delivery => samples::DELIVERY.to_string(),
            _ => continue,
        };
        for parameter in parameters.iter_mut() {
            if let RefOr::T(parameter) = parameter
                && parameter.parameter_in == ParameterIn::Path
            {
                *parameter = ParameterBuilder::from(parameter.clone()).example(Some(Value::from(id.as_str()))).build();
            }
        }
    }
}

fn idempotency_key() -> Parameter {
    let schema = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(255))
        .pattern(Some("^[!-~]([ -~]*[!-~])?$"));
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "Printable ASCII that marks the request as the same as an earlier one of the account: for 24 hours the same \
             key and body is the same message, and the same key with another body is refused.",
        ))
        .schema(Some(schema))
        .build()
}
