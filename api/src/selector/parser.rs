//! From words to an expression.

use super::{
    Expression, Operator, SelectorError,
    lexer::{Token, tokens},
};

/// Deepest nesting of brackets and negations: more is an attack, not a selector.
const MAX_DEPTH: usize = 64;

/// Reads a whole selector; empty text selects everything.
pub(super) fn parse(text: &str) -> Result<Expression, SelectorError> {
    let words = tokens(text)?;
    if words.is_empty() {
        return Ok(Expression::All);
    }
    let mut parser = Parser { words: words.into_iter().peekable(), end: text.len() };
    let expression = parser.or(0)?;
    match parser.words.next() {
        None => Ok(expression),
        Some((position, _)) => Err(SelectorError {
            position,
            message: "expected '&&', '||' or the end of the selector".to_owned(),
        }),
    }
}

struct Parser<I: Iterator<Item = (usize, Token)>> {
    words: std::iter::Peekable<I>,
    end: usize,
}

impl<I: Iterator<Item = (usize, Token)>> Parser<I> {
    fn or(&mut self, depth: usize) -> Result<Expression, SelectorError> {
        let first = self.and(depth)?;
        let mut parts = vec![first];
        while self.words.next_if(|(_, word)| *word == Token::Or).is_some() {
            parts.push(self.and(depth)?);
        }
        Ok(single_or(parts, Expression::Or))
    }

    fn and(&mut self, depth: usize) -> Result<Expression, SelectorError> {
        let first = self.unary(depth)?;
        let mut parts = vec![first];
        while self.words.next_if(|(_, word)| *word == Token::And).is_some() {
            parts.push(self.unary(depth)?);
        }
        Ok(single_or(parts, Expression::And))
    }

    fn unary(&mut self, depth: usize) -> Result<Expression, SelectorError> {
        if depth > MAX_DEPTH {
            return Err(self
                .fail(&format!("more than {MAX_DEPTH} brackets or negations inside each other")));
        }
        if self.words.next_if(|(_, word)| *word == Token::Not).is_some() {
            return Ok(Expression::Not(Box::new(self.unary(depth + 1)?)));
        }
        let expected = "expected a label, all(), has(label), '!' or '('";
        match self.words.next() {
            Some((_, Token::All)) => Ok(Expression::All),
            Some((_, Token::Global)) => Ok(Expression::Global),
            Some((_, Token::Has(name))) => Ok(Expression::Has(name)),
            Some((_, Token::Open)) => {
                let inner = self.or(depth + 1)?;
                match self.words.next() {
                    Some((_, Token::Close)) => Ok(inner),
                    other => Err(self.at(other, "expected ')'")),
                }
            }
            Some((_, Token::Label(name))) => self.comparison(name),
            other => Err(self.at(other, expected)),
        }
    }

    fn comparison(&mut self, name: String) -> Result<Expression, SelectorError> {
        let operator = match self.words.next() {
            Some((_, Token::Equal)) => Operator::Equal,
            Some((_, Token::NotEqual)) => Operator::NotEqual,
            Some((_, Token::Contains)) => Operator::Contains,
            Some((_, Token::StartsWith)) => Operator::StartsWith,
            Some((_, Token::EndsWith)) => Operator::EndsWith,
            Some((_, Token::In)) => return Ok(Expression::In(name, self.values()?)),
            Some((_, Token::NotIn)) => return Ok(Expression::NotIn(name, self.values()?)),
            other => {
                let message = format!(
                    "expected ==, !=, in, not in, contains, starts with or ends with after '{name}'"
                );
                return Err(self.at(other, &message));
            }
        };
        match self.words.next() {
            Some((_, Token::Text(value))) => Ok(Expression::Compare(name, operator, value)),
            other => Err(self.at(other, "expected a value in quotes, such as 'web'")),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        match self.words.next() {
            Some((_, Token::BraceOpen)) => {}
            other => return Err(self.at(other, "expected '{' and values in quotes")),
        }
        let mut values = Vec::new();
        loop {
            match self.words.next() {
                Some((_, Token::Text(value))) => values.push(value),
                Some((_, Token::BraceClose)) => break,
                other => return Err(self.at(other, "expected a value in quotes or '}'")),
            }
            match self.words.next() {
                Some((_, Token::Comma)) => {}
                Some((_, Token::BraceClose)) => break,
                other => return Err(self.at(other, "expected ',' or '}'")),
            }
        }
        values.sort();
        values.dedup();
        Ok(values)
    }

    fn at(&self, found: Option<(usize, Token)>, message: &str) -> SelectorError {
        let position = found.map_or(self.end, |(position, _)| position);
        SelectorError { position, message: message.to_owned() }
    }

    fn fail(&mut self, message: &str) -> SelectorError {
        let position = self.words.peek().map_or(self.end, |(position, _)| *position);
        SelectorError { position, message: message.to_owned() }
    }
}

fn single_or(mut parts: Vec<Expression>, many: fn(Vec<Expression>) -> Expression) -> Expression {
    if parts.len() == 1 { parts.swap_remove(0) } else { many(parts) }
}
