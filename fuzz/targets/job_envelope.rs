//! What a worker takes from the queue: whatever is read is written again as it was, and its subject is its own.
#![no_main]

use common::{
    domain::{
        job::{JOB_VERSION, Job},
        message::Usage,
    },
    queue::{
        delivery::{EnvelopeError, job_in},
        place::Place,
        subjects,
    },
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: &[u8]| {
    match job_in(payload) {
        Ok(job) => check(&job),
        Err(EnvelopeError::Newer(version)) => assert!(version > u64::from(JOB_VERSION)),
        Err(EnvelopeError::Malformed(error)) => assert!(!error.to_string().is_empty()),
    }
});

fn check(job: &Job) {
    assert!(job.v <= JOB_VERSION);
    let written = serde_json::to_vec(job).expect("a job can be written");
    let again = job_in(&written).expect("what was written can be read");
    let twice = serde_json::to_vec(&again).expect("a job can be written");
    assert_eq!(String::from_utf8_lossy(&twice), String::from_utf8_lossy(&written));

    for place in [Place::Front, Place::Slot(63)] {
        let subject = subjects::job(job, place);
        assert_eq!(subject.split('.').count(), 5, "{subject}");
        assert!(subject.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.'), "{subject}");
        assert_eq!(subjects::job_of(&subject), Some(job.id));
        let queue = subjects::queue_of(&subject).expect("a queue");
        assert_eq!((queue.lane, queue.place), (job.lane, place));
    }
    let used = Usage { input_tokens: u32::MAX, output_tokens: u32::MAX, estimated: false };
    let none = Usage { input_tokens: 0, output_tokens: 0, estimated: false };
    assert_eq!(job.price.charge(none), 0);
    let charge = job.price.charge(used);
    assert!(charge >= 0 || job.price.input < 0 || job.price.output < 0);
}
