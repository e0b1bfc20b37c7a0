//! Statements over many rows, in few distinct texts, so that the drivers find them prepared.

use std::{fmt::Write as _, ops::Range};

use sea_orm::{DbBackend, Statement, Value};

/// The most rows in one statement.
const MOST_ROWS: usize = 64;

/// `INSERT INTO <head> VALUES (..), (..) <tail>`.
pub(super) struct Insert {
    /// The table and its columns in parentheses.
    pub(super) head: &'static str,
    /// How many columns that are.
    pub(super) columns: usize,
    /// What follows the rows.
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

impl Update {
    /// The statement for the rows in `values`, one after another.
    pub(super) fn statement(&self, backend: DbBackend, values: Vec<Value>) -> Statement {
        let before = ["UPDATE ", self.head, " FROM (VALUES "];
        over_rows(backend, before, self.columns, [") AS new WHERE ", self.tail], values)
    }
}

fn over_rows(backend: DbBackend, before: [&str; 3], columns: usize, after: [&str; 2], values: Vec<Value>) -> Statement {
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

/// Two statements in one text, for SQLite, which takes the values of the second after those of the first.
pub(super) fn both(first: Statement, second: Statement) -> Statement {
    let values = [first.values, second.values].into_iter().flatten().flat_map(|values| values.0);
    Statement::from_sql_and_values(
        first.db_backend,
        format!("{}; {}", first.sql, second.sql),
        values.collect::<Vec<_>>(),
    )
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
