//! `voilectl get`.

use anyhow::{Context as _, Result};
use api::{Key, Resource, Scope};
use serde_json::{Value, json};
use store::{ListOptions, Store};

use super::{Context, Outcome};
use crate::{
    cli::GetArgs,
    kinds::{Kind, cell, with_kind},
    output::{Format, Table, json as render_json, yaml},
};

/// Runs the command.
///
/// # Errors
/// Unknown kinds and whatever the API server answers.
pub async fn run<S: Store>(context: &Context<S>, args: &GetArgs) -> Result<Outcome> {
    let kind = Kind::find(&args.kind)?;
    let (objects, problems) = with_kind!(kind, R => fetch::<S, R>(context, kind, args).await?);
    if objects.is_empty()
        && problems.is_empty()
        && matches!(context.format, Format::Table | Format::Wide)
    {
        return Ok(Outcome::ok(format!("no {} found\n", kind.info().plural)));
    }
    let mut text = match context.format {
        Format::Json => render_json(&list(&objects, args))?,
        Format::Yaml => yaml(&list(&objects, args))?,
        Format::Name => objects
            .iter()
            .map(|object| format!("{}/{}\n", kind.info().plural, cell(object, "/metadata/name")))
            .collect(),
        Format::Table | Format::Wide => table(kind, &objects, context.format == Format::Wide, args),
    };
    if matches!(context.format, Format::Table | Format::Wide) {
        problems.iter().for_each(|problem| text.push_str(&format!("problem: {problem}\n")));
    }
    Ok(Outcome { text, finding: !problems.is_empty() })
}

async fn fetch<S: Store, R: Resource>(
    context: &Context<S>,
    kind: Kind,
    args: &GetArgs,
) -> Result<(Vec<Value>, Vec<String>)> {
    let namespace = namespace(kind, args.namespace.as_deref());
    if args.names.is_empty() {
        let mut options = ListOptions::default();
        if !args.all_namespaces
            && let Some(namespace) = namespace
        {
            options = options.namespace(namespace);
        }
        let listing = context.list_with::<R>(&options).await?;
        let problem = |(key, why): &(Key, String)| {
            format!("{} {key}: {why}; kubectl can show and change it", kind.info().kind)
        };
        let objects = listing.items.iter().map(|item| typed(kind, item.raw())).collect();
        return Ok((objects, listing.malformed.iter().map(problem).collect()));
    }
    let mut objects = Vec::new();
    for name in &args.names {
        let key = Key { namespace: namespace.clone(), name: name.clone() };
        let found = context.store.get::<R>(&key).await.with_context(|| {
            format!("cannot get {name}; `voilectl get {}` lists what there is", kind.info().plural)
        })?;
        objects.push(typed(kind, found.raw()));
    }
    Ok((objects, Vec::new()))
}

/// Items of a list come without apiVersion and kind; people and `apply -f` want them.
pub(super) fn typed(kind: Kind, raw: &Value) -> Value {
    let mut object = serde_json::Map::new();
    object.insert("apiVersion".to_owned(), json!(kind.info().api_version()));
    object.insert("kind".to_owned(), json!(kind.info().kind));
    if let Some(fields) = raw.as_object() {
        for (name, value) in fields {
            object.insert(name.clone(), value.clone());
        }
    }
    Value::Object(object)
}

/// Returns the namespace to use: the one given, `default` for namespaced kinds, none for others.
pub(super) fn namespace(kind: Kind, given: Option<&str>) -> Option<String> {
    (kind.info().scope == Scope::Namespaced).then(|| given.unwrap_or("default").to_owned())
}

fn list(objects: &[Value], args: &GetArgs) -> Value {
    match objects {
        [single] if args.names.len() == 1 => single.clone(),
        _ => json!({"apiVersion": "v1", "kind": "List", "items": objects}),
    }
}

fn table(kind: Kind, objects: &[Value], wide: bool, args: &GetArgs) -> String {
    let columns: Vec<_> = kind.columns().iter().filter(|column| wide || !column.wide).collect();
    let namespaced = kind.info().scope == Scope::Namespaced && args.all_namespaces;
    let mut headers = if namespaced { vec!["NAMESPACE", "NAME"] } else { vec!["NAME"] };
    headers.extend(columns.iter().map(|column| column.header));
    let mut table = Table::new(&headers);
    for object in objects {
        let mut cells = Vec::new();
        if namespaced {
            cells.push(cell(object, "/metadata/namespace"));
        }
        cells.push(cell(object, "/metadata/name"));
        cells.extend(columns.iter().map(|column| cell(object, column.pointer)));
        table.row(cells);
    }
    table.render()
}

#[cfg(test)]
mod tests;
