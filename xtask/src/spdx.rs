//! Evaluates SPDX licence expressions against a list of accepted licences.

/// Whether the terms of `expression` can be met with accepted licences only: one side of an `OR`, both sides of an
/// `AND`. `WITH` adds an exception, which only widens what the licence permits. `/` is the old spelling of `OR`.
///
/// # Errors
/// A text that is no expression.
pub(crate) fn accepts(expression: &str, accepted: &[&str]) -> Result<bool, String> {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser {
        tokens: &tokens,
        accepted,
    };
    let verdict = parser
        .any()
        .ok_or_else(|| format!("{expression:?} is not a licence expression"))?;
    if parser.tokens.is_empty() {
        Ok(verdict)
    } else {
        Err(format!("{expression:?} goes on after its end"))
    }
}

struct Parser<'a> {
    tokens: &'a [&'a str],
    accepted: &'a [&'a str],
}

impl<'a> Parser<'a> {
    /// all ( OR all )*
    fn any(&mut self) -> Option<bool> {
        let mut verdict = self.all()?;
        while self.take("OR") {
            verdict |= self.all()?;
        }
        Some(verdict)
    }

    /// one ( AND one )*
    fn all(&mut self) -> Option<bool> {
        let mut verdict = self.one()?;
        while self.take("AND") {
            verdict &= self.one()?;
        }
        Some(verdict)
    }

    /// a licence, perhaps WITH an exception, or an expression in parentheses
    fn one(&mut self) -> Option<bool> {
        if self.take("(") {
            let verdict = self.any()?;
            return self.take(")").then_some(verdict);
        }
        let licence = self.name()?;
        if self.take("WITH") {
            self.name()?;
        }
        Some(self.accepted.contains(&licence))
    }

    fn name(&mut self) -> Option<&'a str> {
        let (first, rest) = self.tokens.split_first()?;
        if matches!(*first, "OR" | "AND" | "WITH" | "(" | ")") {
            return None;
        }
        self.tokens = rest;
        Some(*first)
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.tokens.first() == Some(&token);
        if found {
            self.tokens = &self.tokens[1..];
        }
        found
    }
}

#[test]
fn expressions_are_evaluated() {
    let accepted = ["MIT", "Apache-2.0", "Unicode-3.0"];
    for (expression, verdict) in [
        ("MIT", true),
        ("GPL-3.0-only", false),
        ("MIT OR GPL-3.0-only", true),
        ("GPL-3.0-only OR MIT", true),
        ("MIT AND GPL-3.0-only", false),
        ("MIT/Apache-2.0", true),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("(MIT OR Apache-2.0) AND GPL-3.0-only", false),
        ("GPL-3.0-only OR MIT AND Unicode-3.0", true),
        ("MIT OR GPL-3.0-only AND GPL-2.0-only", true),
        ("Apache-2.0 WITH LLVM-exception OR GPL-3.0-only", true),
        ("GPL-2.0-only WITH Classpath-exception-2.0", false),
    ] {
        assert_eq!(accepts(expression, &accepted), Ok(verdict), "{expression}");
    }
    for broken in ["", "MIT OR", "(MIT", "MIT Apache-2.0", "AND MIT", "MIT)"] {
        assert!(accepts(broken, &accepted).is_err(), "{broken:?}");
    }
}
