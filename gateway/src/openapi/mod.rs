//! The document of the API: what the handlers say of themselves, and the errors that our own types know.

pub mod answers;
pub mod document;
pub mod parameters;
pub mod samples;
pub mod shapes;
pub mod step;
