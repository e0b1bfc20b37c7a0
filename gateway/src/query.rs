//! The query of a URL, read parameter by parameter, so that whatever is wrong with it is said with the name.

use std::{fmt::Display, ops::RangeInclusive, str::FromStr};

use axum::extract::{FromRequestParts, Query};
use http::request::Parts;

use crate::error::ApiError;

/// The parameters that have not been read yet. Unknown ones are ignored.
#[derive(Debug)]
pub struct Parameters(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Parameters {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match Query::<Vec<(String, String)>>::try_from_uri(&parts.uri) {
            Ok(Query(pairs)) => Ok(Self(pairs)),
            Err(_) => Err(ApiError::BadRequest("the query of the URL cannot be read".to_owned())),
        }
    }
}

impl Parameters {
    /// A text that may be absent.
    ///
    /// # Errors
    /// When it is there twice.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        let mut found = None;
        while let Some(index) = self.0.iter().position(|(other, _)| other == name) {
            let (_, value) = self.0.swap_remove(index);
            if found.replace(value).is_some() {
                return Err(fault(name, "is there twice"));
            }
        }
        Ok(found)
    }

    /// A value that may be absent.
    ///
    /// # Errors
    /// With a sentence that says that it `has_to_be` something, when it is not.
    pub fn parsed<T: FromStr>(&mut self, name: &str, has_to_be: &str) -> Result<Option<T>, ApiError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| fault(name, &format!("has to be {has_to_be}")))
    }

    /// A number within `range`, or `default` when it is absent.
    ///
    /// # Errors
    /// When it is none.
    pub fn within<T>(&mut self, name: &str, default: T, range: RangeInclusive<T>) -> Result<T, ApiError>
    where
        T: FromStr + PartialOrd + Display,
    {
        let has_to_be = format!("a number from {} to {}", range.start(), range.end());
        match self.parsed(name, &has_to_be)? {
            None => Ok(default),
            Some(number) if range.contains(&number) => Ok(number),
            Some(_) => Err(fault(name, &format!("has to be {has_to_be}"))),
        }
    }
}

fn fault(name: &str, what: &str) -> ApiError {
    ApiError::BadRequest(format!("`{name}` {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<T>(result: Result<T, ApiError>) -> String {
        match result {
            Err(ApiError::BadRequest(sentence)) => sentence,
            _ => panic!("not refused"),
        }
    }

    async fn parameters(query: &str) -> Result<Parameters, ApiError> {
        let request = http::Request::get(format!("/x?{query}")).body(()).expect("a request");
        Parameters::from_request_parts(&mut request.into_parts().0, &()).await
    }

    #[tokio::test]
    async fn each_fault_names_its_parameter() {
        let mut query = parameters("a=1&a=2&n=301&m=-1&e=&t=x%20y").await.expect("a query");
        assert_eq!(refused(query.text("a")), "`a` is there twice");
        assert_eq!(refused(query.within("n", 0, 0..=300)), "`n` has to be a number from 0 to 300");
        assert_eq!(refused(query.within("m", 0_u32, 0..=300)), "`m` has to be a number from 0 to 300");
        assert_eq!(refused(query.within("e", 7, 0..=300)), "`e` has to be a number from 0 to 300");
        assert_eq!(query.within("gone", 7, 0..=300), Ok(7));
        assert_eq!(query.text("t"), Ok(Some("x y".to_owned())));
        assert_eq!(query.text("gone"), Ok(None));
    }

    #[tokio::test]
    async fn odd_queries_are_read_or_refused_and_nothing_else() {
        for odd in ["", "&&", "=", "a", "%", "%zz=1", "a=%ff"] {
            let _ = parameters(odd).await;
        }
    }
}
