//! The events in an answer's bytes, wherever these are cut.

use bytes::Bytes;
use eventsource_stream::{Event, EventStreamError, Eventsource as _};
use futures_util::{Stream, StreamExt as _};

use super::lines::Lines;
use crate::providers::provider::{ErrorKind, ProviderError};

/// The events in `pieces`, each of at most `most` bytes. An error of `pieces` comes out as it is; an event that is
/// larger is one of the protocol.
pub fn read<S>(pieces: S, most: usize) -> impl Stream<Item = Result<Event, ProviderError>>
where
    S: Stream<Item = Result<Bytes, ProviderError>>,
{
    let mut lines = Lines::new(most);
    let whole = pieces
        .map(move |piece| lines.push(&piece?).map_err(|error| ProviderError::new(ErrorKind::Protocol).because(error)));
    whole.eventsource().map(|event| {
        event.map_err(|error| match error {
            EventStreamError::Transport(error) => error,
            EventStreamError::Utf8(_) | EventStreamError::Parser(_) => ProviderError::new(ErrorKind::Protocol),
        })
    })
}
