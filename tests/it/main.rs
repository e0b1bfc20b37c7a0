//! The contract, tested through the front door: one binary, a module per part.
