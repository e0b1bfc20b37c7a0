//! The whole pool's backlog on the page of counts: as it was last read, and not there when it could not be.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, gauge::ConstGauge},
    registry::Unit,
};

use crate::domain::{
    backlog::{Backlog, LaneBacklog},
    time::Millis,
};

/// What was read last.
#[derive(Clone, Debug, Default)]
pub(super) struct LastBacklog(Arc<Mutex<Option<Backlog>>>);

impl LastBacklog {
    /// From now on this is what the page says.
    pub(super) fn set(&self, backlog: Option<Backlog>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = backlog;
    }
}

impl Collector for LastBacklog {
    fn encode(&self, mut page: DescriptorEncoder) -> fmt::Result {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(backlog) = last else { return Ok(()) };
        let now = Millis::now();
        by_lane(&mut page, "queue_pending", "Jobs that no worker was given yet", None, &backlog, |lane| lane.pending)?;
        let help = "Jobs that workers have, running or held; of the whole pool";
        by_lane(&mut page, "queue_running", help, None, &backlog, |lane| lane.running)?;
        let help = "Age of the oldest pending job; an upper bound in a lane of more than 5,000";
        let age = |lane: &LaneBacklog| lane.oldest_age(now).as_secs_f64();
        by_lane(&mut page, "queue_oldest_age", help, Some(Unit::Seconds), &backlog, age)?;
        let Some(drain) = backlog.drain else { return Ok(()) };
        let help = "Time until all that is pending or running has ended, as fast as it was lately";
        let gauge = page.encode_descriptor("queue_drain", help, Some(&Unit::Seconds), MetricType::Gauge)?;
        ConstGauge::new(drain.as_secs_f64()).encode(gauge)
    }
}

fn by_lane<N>(
    page: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<Unit>,
    backlog: &Backlog,
    number: impl Fn(&LaneBacklog) -> N,
) -> fmt::Result
where
    ConstGauge<N>: prometheus_client::encoding::EncodeMetric,
{
    let mut family = page.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
    for (lane, counts) in backlog.lanes() {
        ConstGauge::new(number(counts)).encode(family.encode_family(&[("lane", lane.name())])?)?;
    }
    Ok(())
}
