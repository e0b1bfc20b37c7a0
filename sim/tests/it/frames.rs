//! Text on its way from runs to readers: whatever of it is lost, doubled, late or of a run that is over, each reader has
//! the text of one run at any time, and the stored answer at the end.

mod gathered;
mod plain;
mod readers;
mod runs;
mod way;
