//! The lines of a batch: the same wherever the body is cut, in bounds, and each a request or a sentence.
//!
//! The first byte of the input says into how large pieces the rest is cut.
#![no_main]

use std::convert::Infallible;

use common::domain::job::Role;
use gateway::{
    batches::{
        rules::LINE_BYTES,
        splitter::{Line, Splitter},
    },
    channels::batch_line,
    fields::Fields,
};
use libfuzzer_sys::fuzz_target;

type Told = (u32, Option<Vec<u8>>);

fuzz_target!(|input: &[u8]| {
    let Some((size, body)) = input.split_first() else { return };
    let whole = lines(body, body.len().max(1));
    assert_eq!(whole, lines(body, usize::from(*size).max(1)));
    let ends = body.iter().filter(|byte| **byte == b'\n').count();
    assert!(whole.len() <= ends + 1);
    let mut last = 0;
    for (number, text) in whole {
        assert!(number > last && number as usize <= ends + 1);
        last = number;
        if let Some(text) = text {
            check(&text);
        }
    }
});

fn lines(body: &[u8], size: usize) -> Vec<Told> {
    let mut told = Vec::new();
    let mut take = |line: Line<'_>| {
        told.push((line.number, line.text.map(<[u8]>::to_vec)));
        Ok::<_, Infallible>(())
    };
    let mut splitter = Splitter::default();
    for piece in body.chunks(size) {
        let Ok(()) = splitter.split(piece, &mut take);
    }
    let Ok(()) = splitter.finish(&mut take);
    told
}

fn check(line: &[u8]) {
    assert!(line.len() <= LINE_BYTES && !line.contains(&b'\n') && !line.trim_ascii().is_empty());
    match Fields::parse_line(line).and_then(batch_line::request) {
        Err(fault) => assert!(fault.0.contains(' '), "no sentence: {fault}"),
        Ok(request) => {
            let last = request.turns.last().expect("something is said");
            assert_eq!(last.role, Role::User);
            assert!(!last.content.trim().is_empty());
            let said: usize = request.turns.iter().map(|turn| turn.content.len()).sum();
            assert!(said <= line.len(), "more is said than was sent");
            assert!(request.turns.iter().all(|turn| !turn.content.contains('\0')));
        }
    }
}
