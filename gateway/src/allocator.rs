//! The allocator of the gateway. Without huge pages: most of what a waiting caller has is room that nobody writes to, and
//! with them all of it is in memory (measured: 28 to 34 KiB a caller, 20 without).

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;
