//! Properties of the pure parts, each held against hundreds or thousands of random cases.

mod clock;
mod ends;
mod frames;
mod hops;
mod limits;
mod waiters;
