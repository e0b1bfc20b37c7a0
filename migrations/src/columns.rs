//! The few kinds of columns that the tables are made of.

use sea_orm_migration::{
    prelude::{ColumnDef, IntoIden, SchemaManager},
    sea_orm::DbBackend,
};

/// A UUID: 16 bytes on SQLite, which has no type for it.
pub(crate) fn id(manager: &SchemaManager<'_>, name: impl IntoIden) -> ColumnDef {
    let mut column = ColumnDef::new(name);
    match manager.get_database_backend() {
        DbBackend::Sqlite => column.blob(),
        _ => column.uuid(),
    };
    column
}

/// Text of any length.
pub(crate) fn text(name: impl IntoIden) -> ColumnDef {
    ColumnDef::new(name).text().take()
}

/// A 64-bit number; points in time are such, in milliseconds since 1970.
pub(crate) fn number(name: impl IntoIden) -> ColumnDef {
    ColumnDef::new(name).big_integer().take()
}

/// A 32-bit number.
pub(crate) fn small(name: impl IntoIden) -> ColumnDef {
    ColumnDef::new(name).integer().take()
}

/// Yes or no.
pub(crate) fn flag(name: impl IntoIden) -> ColumnDef {
    ColumnDef::new(name).boolean().take()
}

/// A fixed number of bytes.
pub(crate) fn bytes(name: impl IntoIden) -> ColumnDef {
    ColumnDef::new(name).blob().take()
}
