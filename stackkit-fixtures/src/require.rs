//! Whether a store must be there.

/// The environment variable that lists the stores whose servers must be installed: `postgres,redis,volume`.
pub const REQUIRE: &str = "STACKKIT_REQUIRE";

/// Whether [`REQUIRE`] names the store `kind`: its tests then fail where the server is missing, instead of being
/// ignored with the reason.
///
/// ```
/// assert!(!stackkit_fixtures::is_required("no-such-store"));
/// ```
#[must_use]
pub fn is_required(kind: &str) -> bool {
    std::env::var(REQUIRE).is_ok_and(|list| names(&list, kind))
}

fn names(list: &str, kind: &str) -> bool {
    list.split(',').any(|word| word.trim() == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_split_at_commas() {
        assert!(names("postgres, redis", "redis"));
        assert!(!names("postgres,redis", "red"));
        assert!(!names("", "redis"));
    }
}
