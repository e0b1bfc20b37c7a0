//! What the product's own document says of one operation.

use serde_json::Value;

use crate::{answer::Answer, schema};

/// One operation of the document.
#[derive(Clone, Copy, Debug)]
pub struct Operation<'a> {
    document: &'a Value,
    /// Its method, in lower case.
    pub method: &'a str,
    /// Its path, with the names of parameters in braces.
    pub path: &'a str,
    /// What the document says of it.
    pub about: &'a Value,
}

impl<'a> Operation<'a> {
    /// All that the document tells of.
    pub fn all(document: &'a Value) -> Vec<Self> {
        let mut all = Vec::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            for (method, about) in item.as_object().expect("operations") {
                all.push(Self { document, method, path, about });
            }
        }
        all
    }

    /// Its name, `operationId`.
    pub fn name(&self) -> &str {
        self.about["operationId"].as_str().unwrap_or_else(|| panic!("{} {} has no name", self.method, self.path))
    }

    /// The example of its body, with its media type.
    pub fn body(&self) -> Option<(&str, String)> {
        let (media_type, content) = self.about["requestBody"]["content"].as_object()?.iter().next()?;
        let own = content.get("example");
        let example = own.or_else(|| schema::resolved(self.document, &content["schema"]).get("example"))?;
        Some((media_type, example.as_str().map_or_else(|| example.to_string(), str::to_owned)))
    }

    /// Its path with the examples of what stands in it; ids are `id` instead, if there is one.
    pub fn path_of_example(&self, id: Option<&str>) -> String {
        let parameters = self.about["parameters"].as_array().into_iter().flatten();
        let in_path = parameters.filter(|parameter| parameter["in"] == "path");
        in_path.fold(self.path.to_owned(), |path, parameter| {
            let name = parameter["name"].as_str().expect("a name");
            let example = parameter["example"].as_str().or(parameter["schema"]["example"].as_str());
            let example = example.unwrap_or_else(|| panic!("{path}: no example of {name}"));
            let is_id = name.ends_with("id");
            path.replace(&format!("{{{name}}}"), id.filter(|_| is_id).unwrap_or(example))
        })
    }

    /// Fails unless the document says that it answers so.
    pub fn documents(&self, answer: &Answer) {
        let said = &self.about["responses"][answer.status.to_string()];
        assert!(said.is_object(), "{} does not document {answer}", self.name());
        let Some(content) = schema::resolved(self.document, said)["content"].as_object() else {
            assert!(answer.body.is_empty(), "{} documents no body: {answer}", self.name());
            return;
        };
        let media_type = answer.header("content-type").unwrap_or_default();
        let content = content.get(media_type).unwrap_or_else(|| panic!("{}: {answer}", self.name()));
        if media_type == "application/json" {
            let misfits = schema::misfits(self.document, &content["schema"], &answer.json());
            assert!(misfits.is_empty(), "{}: {misfits:?} in {answer}", self.name());
        }
    }
}
