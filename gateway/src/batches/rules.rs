//! How large a batch may be.

use crate::error::ApiError;

/// The most requests of one batch.
pub const MOST_LINES: u32 = 50_000;
/// The most bytes of its body.
pub const MOST_BYTES: u64 = 200_000_000;
/// The most bytes of one of its lines, without the line's end.
pub const LINE_BYTES: usize = 65_536;
/// That a body has more of them.
pub const TOO_LARGE: ApiError = ApiError::BatchTooLarge { lines: MOST_LINES, bytes: MOST_BYTES };
/// The most characters of a `custom_id`.
pub const CUSTOM_ID_CHARACTERS: usize = 255;
