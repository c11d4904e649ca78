//! Words of a selector. White space is space and tab, as in Calico.

use super::SelectorError;

/// A word.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Token {
    Label(String),
    Text(String),
    All,
    Global,
    Has(String),
    Open,
    Close,
    BraceOpen,
    BraceClose,
    Comma,
    Not,
    And,
    Or,
    Equal,
    NotEqual,
    In,
    NotIn,
    Contains,
    StartsWith,
    EndsWith,
}

/// Longest label name (`libcalico-go/lib/selector/tokenizer`).
const MAX_LABEL: usize = 512;

/// Operators of letters; longer forms first.
const WORDS: &[(&[&str], Token)] = &[
    (&["not in", "notin"], Token::NotIn),
    (&["in"], Token::In),
    (&["contains"], Token::Contains),
    (&["starts with", "startswith"], Token::StartsWith),
    (&["ends with", "endswith"], Token::EndsWith),
];

const SIGNS: &[(&str, Token)] = &[
    ("==", Token::Equal),
    ("!=", Token::NotEqual),
    ("&&", Token::And),
    ("||", Token::Or),
    ("!", Token::Not),
    ("(", Token::Open),
    (")", Token::Close),
    ("{", Token::BraceOpen),
    ("}", Token::BraceClose),
    (",", Token::Comma),
];

/// Cuts a selector into words with their positions.
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, SelectorError> {
    let mut found: Vec<(usize, Token)> = Vec::new();
    let mut rest = text.trim_start_matches([' ', '\t']);
    while !rest.is_empty() {
        let position = text.len() - rest.len();
        let after_label = matches!(found.last(), Some((_, Token::Label(_))));
        let (token, tail) =
            next(rest, after_label).map_err(|message| SelectorError { position, message })?;
        found.push((position, token));
        rest = tail.trim_start_matches([' ', '\t']);
    }
    Ok(found)
}

fn next(rest: &str, after_label: bool) -> Result<(Token, &str), String> {
    // After a label only an operator can come: `in` is a label elsewhere.
    if after_label {
        for (spellings, token) in WORDS {
            for spelling in *spellings {
                if let Some(tail) = word(rest, spelling) {
                    return Ok((token.clone(), tail));
                }
            }
        }
    }
    for (sign, token) in SIGNS {
        if let Some(tail) = rest.strip_prefix(sign) {
            return Ok((token.clone(), tail));
        }
    }
    if let Some(quote) = rest.chars().next().filter(|quote| matches!(quote, '\'' | '"')) {
        let inner = rest.get(1..).unwrap_or_default();
        let (value, tail) = inner
            .split_once(quote)
            .ok_or_else(|| format!("the text that begins here has no closing {quote}"))?;
        return Ok((Token::Text(value.to_owned()), tail));
    }
    for (call, token) in [("all()", Token::All), ("global()", Token::Global)] {
        if let Some(tail) = rest.strip_prefix(call) {
            return Ok((token, tail));
        }
    }
    if let Some(tail) = rest.strip_prefix("has(") {
        let (name, tail) = label(tail.trim_start_matches([' ', '\t']))?;
        let tail = tail.trim_start_matches([' ', '\t']);
        let tail =
            tail.strip_prefix(')').ok_or("has( needs a label and a closing bracket: has(role)")?;
        return Ok((Token::Has(name), tail));
    }
    label(rest).map(|(name, tail)| (Token::Label(name), tail))
}

/// Strips an operator of letters; what follows must not go on with a label character.
fn word<'a>(rest: &'a str, spelling: &str) -> Option<&'a str> {
    let tail = rest.strip_prefix(spelling)?;
    let more = tail.chars().next().is_some_and(is_label_character);
    (!more).then_some(tail)
}

fn label(rest: &str) -> Result<(String, &str), String> {
    let end = rest.find(|character| !is_label_character(character)).unwrap_or(rest.len());
    let (name, tail) = rest.split_at(end);
    if name.is_empty() {
        let found = rest.chars().next().map_or_else(|| "the end".to_owned(), |c| format!("'{c}'"));
        return Err(format!("expected a label, all(), has(label), '!' or '(', found {found}"));
    }
    if name.len() > MAX_LABEL {
        return Err(format!("a label name has at most {MAX_LABEL} characters"));
    }
    Ok((name.to_owned(), tail))
}

const fn is_label_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '.' | '/' | '-')
}
