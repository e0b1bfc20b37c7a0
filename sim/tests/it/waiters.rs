//! Waiting callers: each has one outcome, its own, in time; and nothing is left of those who are gone.

mod calls;
mod case;
mod store;
mod streams;
