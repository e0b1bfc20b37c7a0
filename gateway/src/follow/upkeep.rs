//! What keeps following safe: ends whose frame was lost are found in the store.

use common::{lifecycle::Lifecycle, queue::connection::Connection};

use super::hub::Hub;
use crate::stored_ends::StoredEnds;

/// Finds the ends of all that is followed, now and then and after each reconnect.
pub async fn look_after(hub: Hub, ends: StoredEnds, connection: Connection, lifecycle: Lifecycle) {
    ends.look_after(connection.link(), &lifecycle, |_| hub.followed(), |id, outcome| hub.tell(id, outcome)).await;
}
