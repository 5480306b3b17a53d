//! SPDX licence expressions, as far as `Cargo.toml` files use them.

/// Whether `expression` can be met with licences that `allowed` accepts. `AND` binds tighter than `OR`; `/` is the old way to
/// write `OR`. An expression that cannot be read is not met.
pub(super) fn is_met(expression: &str, allowed: impl Fn(&str) -> bool) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut parser = Parser { tokens: spaced.split_whitespace().collect(), at: 0, allowed };
    let met = parser.any_of();
    met == Some(true) && parser.at == parser.tokens.len()
}

struct Parser<'a, F> {
    tokens: Vec<&'a str>,
    at: usize,
    allowed: F,
}

impl<'a, F: Fn(&str) -> bool> Parser<'a, F> {
    fn any_of(&mut self) -> Option<bool> {
        let mut met = self.all_of()?;
        while self.take("OR") {
            met |= self.all_of()?;
        }
        Some(met)
    }

    fn all_of(&mut self) -> Option<bool> {
        let mut met = self.one()?;
        while self.take("AND") {
            met &= self.one()?;
        }
        Some(met)
    }

    fn one(&mut self) -> Option<bool> {
        if self.take("(") {
            let met = self.any_of()?;
            return self.take(")").then_some(met);
        }
        let licence = self.word()?;
        if !self.take("WITH") {
            return Some((self.allowed)(licence));
        }
        let exception = self.word()?;
        Some((self.allowed)(&format!("{licence} WITH {exception}")))
    }

    fn word(&mut self) -> Option<&'a str> {
        let word = *self.tokens.get(self.at)?;
        self.at += 1;
        (!matches!(word, "(" | ")" | "OR" | "AND" | "WITH")).then_some(word)
    }

    fn take(&mut self, token: &str) -> bool {
        let next = self.tokens.get(self.at) == Some(&token);
        self.at += usize::from(next);
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(expression: &str) -> bool {
        is_met(expression, |licence| ["MIT", "Zlib", "Apache-2.0 WITH LLVM-exception"].contains(&licence))
    }

    #[test]
    fn one_alternative_is_enough_and_every_part_is_needed() {
        assert!(met("MIT") && met("MIT OR GPL-3.0") && met("GPL-3.0/MIT") && met("MIT AND Zlib"));
        assert!(!met("GPL-3.0") && !met("MIT AND GPL-3.0"));
    }

    #[test]
    fn and_binds_tighter_than_or() {
        assert!(met("GPL-3.0 AND LGPL-3.0 OR MIT"));
        assert!(!met("(GPL-3.0 OR MIT) AND LGPL-3.0"));
        assert!(met("(GPL-3.0 OR MIT) AND (Zlib OR LGPL-3.0)"));
    }

    #[test]
    fn an_exception_is_part_of_the_licence() {
        assert!(met("Apache-2.0 WITH LLVM-exception"));
        assert!(!met("Apache-2.0"));
    }

    #[test]
    fn what_cannot_be_read_is_not_met() {
        assert!(!met("") && !met("MIT OR") && !met("(MIT") && !met("MIT Zlib") && !met("MIT )") && !met("WITH MIT"));
    }
}
