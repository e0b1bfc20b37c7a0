//! Statements over many rows, in few distinct texts, so that the drivers find them prepared.

use std::{fmt::Write as _, ops::Range};

use sea_orm::{DbBackend, Statement, Value};

/// The most rows in one statement.
pub(super) const MOST_ROWS: usize = 64;
/// How many rows a statement over padded rows can have.
const PADDED: [usize; 12] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, MOST_ROWS];

/// `INSERT INTO <head> VALUES (..), (..) <tail>`.
pub(super) struct Insert {
    /// The table and its columns in parentheses.
    pub(super) head: &'static str,
    /// How many columns that are.
    pub(super) columns: usize,
    /// What follows the rows.
    pub(super) tail: &'static str,
}

/// `INSERT INTO <head> SELECT * FROM (VALUES (..), (..)) WHERE <tail>`, in which the columns of the values are called
/// `column1` and so on; on SQLite.
pub(super) struct InsertSome {
    /// The table and its columns in parentheses.
    pub(super) head: &'static str,
    /// How many columns that are.
    pub(super) columns: usize,
    /// Which rows are taken, and what follows.
    pub(super) tail: &'static str,
}

/// `UPDATE <head> FROM (VALUES (..), (..)) AS new WHERE <tail>`, in which the columns of the values are called `column1`
/// and so on.
pub(super) struct Update {
    /// The table and what is set.
    pub(super) head: &'static str,
    /// How many columns the values have.
    pub(super) columns: usize,
    /// Which row of the table each row of the values is for.
    pub(super) tail: &'static str,
}

impl Insert {
    /// The statement for the rows in `values`, one after another.
    pub(super) fn statement(&self, backend: DbBackend, values: Vec<Value>) -> Statement {
        over_rows(backend, ["INSERT INTO ", self.head, " VALUES "], self.columns, [" ", self.tail], values)
    }
}

impl InsertSome {
    /// The statement for the rows in `values`, one after another, and further ones of nulls up to `rows`.
    pub(super) fn padded(&self, mut values: Vec<Value>, rows: usize) -> Statement {
        values.resize(rows * self.columns, Value::BigInt(None));
        let before = ["INSERT INTO ", self.head, " SELECT * FROM (VALUES "];
        over_rows(DbBackend::Sqlite, before, self.columns, [") WHERE ", self.tail], values)
    }
}

impl Update {
    /// The statement for the rows in `values`, one after another.
    pub(super) fn statement(&self, backend: DbBackend, values: Vec<Value>) -> Statement {
        let before = ["UPDATE ", self.head, " FROM (VALUES "];
        over_rows(backend, before, self.columns, [") AS new WHERE ", self.tail], values)
    }
}

/// A statement in which the rows in `values`, each in parentheses, stand between two texts.
pub(super) fn over_rows(
    backend: DbBackend,
    before: [&str; 3],
    columns: usize,
    after: [&str; 2],
    values: Vec<Value>,
) -> Statement {
    let rows = values.len() / columns;
    let length = before.iter().chain(&after).map(|text| text.len()).sum::<usize>();
    let mut sql = String::with_capacity(length + values.len() * 6 + rows * 3 + 1);
    sql.extend(before);
    for place in 0..values.len() {
        if place % columns > 0 {
            sql.push(',');
        } else {
            sql.push_str(if place == 0 { "(" } else { "),(" });
        }
        push_placeholder(&mut sql, backend, place);
    }
    sql.push(')');
    sql.extend(after);
    Statement::from_sql_and_values(backend, sql, values)
}

/// SQLite looks numbered parameters up by name, one after another: with hundreds of them that takes longer than
/// the insert. PostgreSQL knows only numbered ones.
fn push_placeholder(sql: &mut String, backend: DbBackend, place: usize) {
    if backend == DbBackend::Sqlite {
        sql.push('?');
        return;
    }
    // Writing to a string cannot fail.
    let _ = write!(sql, "${}", place + 1);
}

/// `total` rows in portions of 64, 32, 16 .. 1: seven texts of a statement do for any number of rows.
pub(super) fn portions(total: usize) -> impl Iterator<Item = Range<usize>> {
    portions_of(total, MOST_ROWS)
}

/// The same for rows of which one statement can have more or has to have less: `most`, a power of two.
pub(super) fn portions_of(total: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let mut begin = 0;
    std::iter::from_fn(move || {
        let left = total - begin;
        let rows = match left {
            0 => return None,
            _ if left >= most => most,
            _ => 1 << left.ilog2(),
        };
        begin += rows;
        Some(begin - rows..begin)
    })
}

/// How many rows a statement over `rows` of them has, those included that are there for nothing but to make do with few
/// texts: at most 64.
pub(super) fn padded(rows: usize) -> usize {
    PADDED.into_iter().find(|size| *size >= rows).unwrap_or(MOST_ROWS)
}

/// Some statements in one text, for SQLite, which takes the values of each after those of the one before.
pub(super) fn together<const N: usize>(statements: [Statement; N]) -> Statement {
    let sql = statements.each_ref().map(|statement| statement.sql.as_str()).join("; ");
    let values = statements.into_iter().filter_map(|statement| statement.values).flat_map(|values| values.0);
    Statement::from_sql_and_values(DbBackend::Sqlite, sql, values.collect::<Vec<_>>())
}

/// A text, or none. NUL, which PostgreSQL cannot store, becomes the replacement character.
pub(super) fn text(value: Option<&str>) -> Value {
    match value {
        Some(text) if text.contains('\0') => text.replace('\0', "\u{fffd}").into(),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portions_cover_every_row_once() {
        for total in [0, 1, 2, 3, 63, 64, 65, 100, 1_000] {
            let portions: Vec<_> = portions(total).collect();
            let rows: Vec<usize> = portions.iter().cloned().flatten().collect();
            assert_eq!(rows, (0..total).collect::<Vec<_>>());
            assert!(portions.iter().all(|p| p.len().is_power_of_two() && p.len() <= MOST_ROWS), "{portions:?}");
        }
    }

    #[test]
    fn placeholders_are_those_of_the_database() {
        let insert = Insert { head: "t (a, b)", columns: 2, tail: "RETURNING a" };
        let values = || vec![Value::from(1), 2.into(), 3.into(), 4.into()];
        let text = |backend| insert.statement(backend, values()).sql;
        assert_eq!(text(DbBackend::Sqlite), "INSERT INTO t (a, b) VALUES (?,?),(?,?) RETURNING a");
        assert_eq!(text(DbBackend::Postgres), "INSERT INTO t (a, b) VALUES ($1,$2),($3,$4) RETURNING a");
        let update = Update { head: "t SET a = column2", columns: 2, tail: "b = column1" };
        let text = update.statement(DbBackend::Sqlite, values()).sql;
        assert_eq!(text, "UPDATE t SET a = column2 FROM (VALUES (?,?),(?,?)) AS new WHERE b = column1");
    }
}
