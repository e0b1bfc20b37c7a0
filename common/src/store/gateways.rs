//! Gateways that run. Each says so from time to time, to the store and not to the queue: the ones that have to be
//! named are those that the queue does not reach.

use std::time::Duration;

use sea_orm::{
    ActiveValue::Set, ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, sea_query::OnConflict,
};

use super::{
    connection::{Store, within_patience},
    entity::gateway,
    error::StoreError,
};
use crate::domain::{ids::GatewayId, time::Millis};

/// How often a gateway says that it runs.
pub const GATEWAY_BEAT: Duration = Duration::from_secs(5);
/// One that has said nothing for this long counts as gone.
const GATEWAY_LIFE: Duration = Duration::from_secs(12);

/// A gateway that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveGateway {
    /// Its identifier.
    pub id: GatewayId,
    /// Where it serves, as `host:port`.
    pub address: String,
}

impl Store {
    /// Notes that the gateway runs, and forgets those that have been silent for long.
    pub async fn gateway_lives(&self, id: GatewayId, address: &str) -> Result<(), StoreError> {
        within_patience(async {
            let now = Millis::now();
            let row = gateway::ActiveModel { id: Set(id.0), address: Set(address.to_owned()), seen_at: Set(now.0) };
            let again = OnConflict::column(gateway::Column::Id).update_column(gateway::Column::SeenAt).to_owned();
            let write = self.write().await?;
            gateway::Entity::insert(row).on_conflict(again).exec_without_returning(&*write).await?;
            let silent = gateway::Column::SeenAt.lt(silent_since(now));
            gateway::Entity::delete_many().filter(silent).exec(&*write).await?;
            write.commit().await
        })
        .await
    }

    /// Notes that the gateway has stopped.
    pub async fn gateway_stops(&self, id: GatewayId) -> Result<(), StoreError> {
        within_patience(async {
            let write = self.write().await?;
            gateway::Entity::delete_by_id(id.0).exec(&*write).await?;
            write.commit().await
        })
        .await
    }

    /// The gateways that run, as far as they have said so lately.
    pub async fn live_gateways(&self) -> Result<Vec<LiveGateway>, StoreError> {
        within_patience(async {
            let lately = gateway::Column::SeenAt.gte(silent_since(Millis::now()));
            let rows = gateway::Entity::find().filter(lately).order_by_asc(gateway::Column::Id).all(&self.db).await?;
            Ok(rows.into_iter().map(|row| LiveGateway { id: GatewayId(row.id), address: row.address }).collect())
        })
        .await
    }
}

fn silent_since(now: Millis) -> i64 {
    now.0 - i64::try_from(GATEWAY_LIFE.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::on_each_database;

    #[tokio::test]
    async fn a_gateway_lives_until_it_stops_or_falls_silent() {
        on_each_database(async |store| {
            let (one, other) = (GatewayId::new(), GatewayId::new());
            store.gateway_lives(one, "127.0.0.1:1").await.expect("noted");
            store.gateway_lives(other, "127.0.0.1:2").await.expect("noted");
            store.gateway_lives(one, "127.0.0.1:1").await.expect("noted again");
            let live = store.live_gateways().await.expect("both");
            assert_eq!(live.iter().map(|gateway| gateway.id).collect::<Vec<_>>(), [one, other]);
            store.gateway_stops(one).await.expect("noted");
            let stale =
                gateway::Entity::update_many().col_expr(gateway::Column::SeenAt, sea_orm::sea_query::Expr::val(0_i64));
            stale.exec(&store.db).await.expect("aged");
            assert_eq!(store.live_gateways().await.expect("none"), []);
            store.gateway_lives(one, "127.0.0.1:1").await.expect("back");
            assert_eq!(store.live_gateways().await.expect("one").len(), 1);
        })
        .await;
    }
}
