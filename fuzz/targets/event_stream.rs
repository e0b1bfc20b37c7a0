//! The events that a model's endpoint sends: the same wherever the bytes are cut, and never larger than allowed.
//!
//! The first byte of the input says into how large pieces the rest is cut.
#![no_main]

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use libfuzzer_sys::fuzz_target;
use worker::providers::openai::events;

/// The most bytes of one event here.
const MOST: usize = 256;

type Told = (String, String, String);

fuzz_target!(|input: &[u8]| {
    let Some((size, body)) = input.split_first() else { return };
    let whole = told(body, body.len().max(1));
    let pieces = told(body, usize::from(*size).max(1));
    match (&whole.1, &pieces.1) {
        (false, false) => assert_eq!(whole.0, pieces.0),
        // What came in one piece with the fault is lost.
        (true, true) => assert!(pieces.0.starts_with(&whole.0)),
        _ => panic!("an event is too large only as it is cut: {whole:?} {pieces:?}"),
    }
    for (event, data, id) in &pieces.0 {
        assert!(!format!("{event}{id}").contains(['\r', '\n']) && !data.contains('\r'), "an end of line within one");
        // A byte that is no UTF-8 becomes three.
        assert!(data.len() + event.len() + id.len() <= 3 * MOST, "too large");
    }
});

/// The events of `body` in pieces of `size` bytes, and whether it came to a fault.
fn told(body: &[u8], size: usize) -> (Vec<Told>, bool) {
    let pieces = stream::iter(body.chunks(size).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect::<Vec<_>>());
    let all = events::read(pieces, MOST).collect::<Vec<_>>().now_or_never().expect("nothing is waited for");
    let mut told = Vec::new();
    for event in all {
        match event {
            Ok(event) => told.push((event.event, event.data, event.id)),
            Err(_) => return (told, true),
        }
    }
    (told, false)
}
