//! The contract, tested through the front door: one binary, a module per part.

mod deadline;
mod draining;
mod faults;
mod redelivery;
