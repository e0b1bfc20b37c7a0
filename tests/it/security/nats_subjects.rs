//! The subjects that the roles of `nats.conf` are tried on: those that they need, and everything around them.

/// What a gateway publishes on.
pub const GATEWAY_SAYS: [&str; 22] = [
    "jobs.interactive.front.a.j",
    "jobs.background.3.a.j",
    "jobs.batch.3.a.j",
    "replies.g.j",
    "cancel.j",
    "deliveries.wake",
    "slots.wake",
    "slots.placed.g",
    "invalidate.keys",
    "limits.g",
    "$JS.API.STREAM.INFO.JOBS",
    "$JS.API.STREAM.INFO.EVENTS",
    "$JS.API.CONSUMER.INFO.JOBS.workers-batch-0",
    "$JS.API.CONSUMER.LIST.JOBS",
    "$JS.API.STREAM.MSG.GET.JOBS",
    "$JS.API.STREAM.MSG.DELETE.JOBS",
    "$JS.API.STREAM.MSG.GET.DEAD",
    "$JS.API.STREAM.MSG.DELETE.DEAD",
    "$JS.API.STREAM.INFO.DEAD",
    "$JS.API.DIRECT.GET.EVENTS",
    "$JS.API.STREAM.CREATE.EVENTS",
    "$JS.API.STREAM.PURGE.EVENTS",
];

/// What a gateway listens to.
pub const GATEWAY_HEARS: [&str; 11] = [
    "_INBOX.gateway.>",
    "_INBOX.gateway.x.*",
    "replies.>",
    "replies.g.>",
    "replies.*.j",
    "events.>",
    "events.*.j",
    "invalidate.>",
    "limits.>",
    "limits.*",
    "slots.placed.*",
];

/// What a worker publishes on.
pub const WORKER_SAYS: [&str; 15] = [
    "replies.g.j",
    "events.g.j",
    "dead.j",
    "deliveries.wake",
    "slots.wake",
    "batches.b",
    "$JS.API.STREAM.INFO.JOBS",
    "$JS.API.STREAM.INFO.EVENTS",
    "$JS.API.STREAM.INFO.DEAD",
    "$JS.API.CONSUMER.INFO.JOBS.workers-batch-0",
    "$JS.API.CONSUMER.LIST.JOBS",
    "$JS.API.CONSUMER.MSG.NEXT.JOBS.workers-batch-0",
    "$JS.ACK.JOBS.workers-batch-0.1.1.1.1.0",
    "$JS.ACK._.acc.JOBS.workers-batch-0.1.1.1.1.0",
    "$JS.API.STREAM.CREATE.EVENTS",
];

/// What a worker listens to.
pub const WORKER_HEARS: [&str; 7] =
    ["_INBOX.worker.>", "_INBOX.worker.x", "cancel.*", "cancel.j", "invalidate.>", "deliveries.wake", "slots.wake"];

/// Everything that is published on by somebody, or could be.
pub fn said() -> Vec<String> {
    let mut all: Vec<String> =
        GATEWAY_SAYS.iter().chain(&WORKER_SAYS).chain(&OTHERS).map(|s| (*s).to_owned()).collect();
    for stream in ["JOBS", "EVENTS", "DEAD", "OTHER", "KV_x", "OBJ_x"] {
        all.extend(STREAM_ACTS.iter().map(|act| format!("$JS.API.{act}.{stream}")));
        all.extend(CONSUMER_ACTS.iter().map(|act| format!("$JS.API.{act}.{stream}.workers-batch-0")));
        all.push(format!("$JS.API.CONSUMER.CREATE.{stream}.mine.jobs.interactive.front.a.j"));
        all.push(format!("$JS.API.DIRECT.GET.{stream}.jobs.interactive.front.a.j"));
        all.push(format!("$JS.ACK.{stream}.workers-batch-0.1.1.1.1.0"));
        all.push(format!("$JS.ACK._.acc.{stream}.workers-batch-0.1.1.1.1.0"));
        all.push(format!("$JS.SNAPSHOT.ACK.{stream}.x"));
        all.push(format!("$JS.SNAPSHOT.RESTORE.{stream}.x"));
        all.push(format!("$JS.FC.{stream}.c.x"));
    }
    all.sort();
    all.dedup();
    all
}

/// Everything that somebody may want to listen to.
pub fn heard() -> Vec<String> {
    let mut all: Vec<String> =
        GATEWAY_HEARS.iter().chain(&WORKER_HEARS).chain(&WILDCARDS).map(|s| (*s).to_owned()).collect();
    all.extend(GATEWAY_SAYS.iter().chain(&WORKER_SAYS).map(|subject| (*subject).to_owned()));
    all.sort();
    all.dedup();
    all
}

const STREAM_ACTS: [&str; 16] = [
    "STREAM.CREATE",
    "STREAM.UPDATE",
    "STREAM.DELETE",
    "STREAM.PURGE",
    "STREAM.INFO",
    "STREAM.SNAPSHOT",
    "STREAM.RESTORE",
    "STREAM.MSG.GET",
    "STREAM.MSG.DELETE",
    "STREAM.PEER.REMOVE",
    "STREAM.LEADER.STEPDOWN",
    "CONSUMER.CREATE",
    "CONSUMER.LIST",
    "CONSUMER.NAMES",
    "DIRECT.GET",
    "SERVER.STREAM.MOVE",
];

const CONSUMER_ACTS: [&str; 9] = [
    "CONSUMER.CREATE",
    "CONSUMER.DURABLE.CREATE",
    "CONSUMER.DELETE",
    "CONSUMER.INFO",
    "CONSUMER.MSG.NEXT",
    "CONSUMER.PAUSE",
    "CONSUMER.RESET",
    "CONSUMER.UNPIN",
    "CONSUMER.LEADER.STEPDOWN",
];

const OTHERS: [&str; 47] = [
    "jobs",
    "replies",
    "events",
    "cancel.j.k",
    "dead",
    "deliveries.other",
    "slots.other",
    "slots.placed",
    "slots.placed.g.h",
    "slots.wake.x",
    "anything",
    "anything.else",
    "_INBOX.gateway.x",
    "_INBOX.worker.x",
    "_INBOX.admin.x",
    "_INBOX.x.y",
    "$JS.API.INFO",
    "$JS.API.STREAM.LIST",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.TEMPLATE.CREATE.x",
    "$JS.API.META.LEADER.STEPDOWN",
    "$JS.API.SERVER.REMOVE",
    "$JS.API.ACCOUNT.PURGE.APP",
    "$JS.API.ACCOUNT.STREAM.MOVE.APP.JOBS",
    "$JS.API.CONSUMER.INFO.JOBS.workers-batch-0.x",
    "$JS.EVENT.ADVISORY.API",
    "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.JOBS.x",
    "$JS.domain.API.INFO",
    "$JSC.CI.x",
    "$NRG.V.x",
    "$SYS.REQ.SERVER.PING",
    "$SYS.REQ.SERVER.PING.VARZ",
    "$SYS.REQ.SERVER.PING.JSZ",
    "$SYS.REQ.SERVER.x.RELOAD",
    "$SYS.REQ.SERVER.x.KICK",
    "$SYS.REQ.SERVER.x.LDM",
    "$SYS.REQ.ACCOUNT.APP.CONNZ",
    "$SYS.REQ.ACCOUNT.APP.JSZ",
    "$SYS.REQ.ACCOUNT.PING.STATZ",
    "$SYS.REQ.ACCOUNT.PING.CONNZ",
    "$SYS.REQ.CLAIMS.UPDATE",
    "$SYS.REQ.CLAIMS.DELETE",
    "$SYS.REQ.USER.INFO",
    "$SYS.ACCOUNT.APP.CONNECT",
    "$SRV.PING",
    "$KV.x.y",
    "$O.x.C.y",
];

const WILDCARDS: [&str; 43] = [
    ">",
    "*",
    "*.>",
    "*.*",
    "*.*.*",
    "*.*.*.*.*",
    "jobs.>",
    "jobs.*.*.*.*",
    "jobs.interactive.>",
    "events.g",
    "dead.>",
    "dead.*",
    "cancel.>",
    "deliveries.>",
    "slots.>",
    "slots.*",
    "slots.placed.>",
    "batches.>",
    "replies",
    "_INBOX.>",
    "_INBOX.*.>",
    "_INBOX.*",
    "_INBOX.admin.>",
    "$JS.>",
    "$JS.API.>",
    "$JS.API.STREAM.>",
    "$JS.API.CONSUMER.>",
    "$JS.ACK.>",
    "$JS.ACK.JOBS.>",
    "$JS.EVENT.>",
    "$JS.EVENT.ADVISORY.>",
    "$JS.EVENT.METRIC.>",
    "$JS.FC.>",
    "$NRG.>",
    "$SYS.>",
    "$SYS.REQ.>",
    "$SYS.SERVER.>",
    "$SYS.ACCOUNT.>",
    "$SYS.ACCOUNT.APP.>",
    "$SYS._INBOX.>",
    "$KV.>",
    "$SRV.>",
    "$O.>",
];
