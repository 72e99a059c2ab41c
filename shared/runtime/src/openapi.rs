//! What every operation's documentation has in common, said once: the problems that the extractors and the server
//! answer with, and the media type of all problems. A handler documents only what it decides itself.

use utoipa::{
    PartialSchema,
    openapi::{
        ContentBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder,
        path::{Operation, PathItem},
    },
};

use crate::{
    Problem,
    problem::{FieldError, PROBLEM_JSON},
};

/// Adds to each operation what any like it may be answered.
pub fn complete(openapi: &mut OpenApi) {
    let components = openapi.components.get_or_insert_default();
    components.schemas.insert("Problem".to_owned(), Problem::schema());
    components.schemas.insert("FieldError".to_owned(), FieldError::schema());
    for operation in openapi.paths.paths.values_mut().flat_map(operations) {
        let has_body = operation.request_body.is_some();
        let is_read = has_body || operation.parameters.is_some();
        for (status, applies, when) in [
            ("400", is_read, "The request can't be read"),
            ("408", has_body, "The body did not come to its end in time"),
            ("413", has_body, "The body is too large"),
            ("503", true, "It passes: ask again"),
        ] {
            if applies {
                operation.responses.responses.entry(status.to_owned()).or_insert_with(|| problem(when).into());
            }
        }
        for (status, response) in &mut operation.responses.responses {
            if let (true, RefOr::T(response)) = (status.starts_with(['4', '5']), response) {
                *response = problem(&response.description);
            }
        }
    }
}

/// The operations of a path, by whatever method.
pub fn operations(path: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut path.get, &mut path.put, &mut path.post, &mut path.delete, &mut path.patch].into_iter().flatten()
}

fn problem(when: &str) -> Response {
    let schema = Ref::from_schema_name("Problem");
    let content = ContentBuilder::new().schema(Some(schema)).build();
    ResponseBuilder::new().description(when).content(PROBLEM_JSON, content).build()
}
