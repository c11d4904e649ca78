//! Reading manifests: files, folders and standard input, YAML or JSON, several documents, Lists.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::Deserialize as _;
use serde_json::Value;

/// One object of a manifest, and where it stood.
#[derive(Clone, Debug)]
pub struct Document {
    /// File and number of the document in it, for messages.
    pub origin: String,
    /// The object.
    pub object: Value,
}

/// Reads every object of these files.
///
/// # Errors
/// The file (and document) that cannot be read, with line and column where YAML is broken.
pub fn read(files: &[PathBuf]) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    for file in files {
        if file == Path::new("-") {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
            parse("standard input", &text, &mut documents)?;
        } else if file.is_dir() {
            for path in manifests(file)? {
                read_file(&path, &mut documents)?;
            }
        } else {
            read_file(file, &mut documents)?;
        }
    }
    Ok(documents)
}

fn manifests(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.retain(|path| {
        matches!(path.extension().and_then(|e| e.to_str()), Some("yaml" | "yml" | "json"))
    });
    paths.sort();
    Ok(paths)
}

fn read_file(path: &Path, documents: &mut Vec<Document>) -> Result<()> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&path.display().to_string(), &text, documents)
}

fn parse(name: &str, text: &str, documents: &mut Vec<Document>) -> Result<()> {
    for (number, document) in serde_norway::Deserializer::from_str(text).enumerate() {
        let origin = format!("{name}, document {}", number + 1);
        let object = Value::deserialize(document).with_context(|| origin.clone())?;
        match object.get("items") {
            Some(Value::Array(items)) if object.get("spec").is_none() => {
                documents.extend(
                    items
                        .iter()
                        .map(|item| Document { origin: origin.clone(), object: item.clone() }),
                );
            }
            _ if object.is_null() => {}
            _ => documents.push(Document { origin, object }),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_documents_lists_and_comments_are_read() {
        let mut documents = Vec::new();
        parse(
            "x.yaml",
            "# nothing\n---\nkind: A\n---\nkind: List\nitems: [{kind: B}, {kind: C}]\n---\n",
            &mut documents,
        )
        .unwrap();
        let kinds: Vec<_> =
            documents.iter().map(|d| d.object["kind"].as_str().unwrap().to_owned()).collect();
        assert_eq!(kinds, ["A", "B", "C"]);
    }

    #[test]
    fn broken_yaml_names_file_document_and_line() {
        let error = parse("x.yaml", "kind: A\n---\nkind: [\n", &mut Vec::new()).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.starts_with("x.yaml, document 2:") && text.contains("line"), "{text}");
    }
}
