//! Trying again: pauses grow within their bounds, and no run goes on beyond its tries or its deadline.

mod pauses;
mod runs;
mod script;
