//! The query of a probe, as Kubernetes reads it, and the media types that a request accepts.

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

/// What the query of a probe asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ProbeQuery<'a> {
    /// `verbose`, with any value but `0` and `false`.
    pub(crate) verbose: bool,
    /// Each `exclude=id`, as it was written. Ids have no letter that a URL must encode.
    pub(crate) exclude: Vec<&'a str>,
}

impl<'a> ProbeQuery<'a> {
    pub(crate) fn read(query: &'a str) -> Self {
        let mut read = Self::default();
        for pair in query.split('&') {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("verbose", value) => read.verbose = !matches!(value, "0" | "false"),
                ("exclude", id) => read.exclude.push(id),
                _ => {}
            }
        }
        read
    }
}

/// Whether the query asks to be let in: `login`, with or without a value.
pub(crate) fn asks_to_log_in(query: Option<&str>) -> bool {
    let mut pairs = query.unwrap_or_default().split('&');
    pairs.any(|pair| pair.split_once('=').map_or(pair, |(name, _)| name) == "login")
}

/// The position in `offered` of what the request's `Accept` headers like best, and the first one where they like nothing of
/// it, or are not there: an answer in another form helps more than a refusal.
pub(crate) fn accepted(headers: &HeaderMap, offered: &[&str]) -> usize {
    let mut best = (0, 0);
    let ranges =
        headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|line| line.split(','));
    for range in ranges {
        let (media, parameters) = range.split_once(';').unwrap_or((range, ""));
        let media = media.trim();
        let quality = quality(parameters);
        let position = match media {
            "*/*" => Some(0),
            _ => offered.iter().position(|offer| offer.eq_ignore_ascii_case(media)),
        };
        if let Some(position) = position
            && quality > best.1
        {
            best = (position, quality);
        }
    }
    best.0
}

/// The weight of a media range in thousandths: `q=0.5` is 500, none is 1000.
fn quality(parameters: &str) -> u32 {
    let weight = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("q="));
    let Some(weight) = weight else { return 1000 };
    let (whole, fraction) = weight.trim().split_once('.').unwrap_or((weight.trim(), ""));
    match whole {
        "1" => 1000,
        "0" => format!("{fraction:0<3}").get(..3).and_then(|digits| digits.parse().ok()).unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbose_is_a_flag_that_can_be_denied() {
        for yes in ["verbose", "verbose=", "verbose=1", "verbose=true", "a=b&verbose", "verbose&exclude=x"] {
            assert!(ProbeQuery::read(yes).verbose, "{yes}");
        }
        for no in ["", "verbose=0", "verbose=false", "verbosex", "x=verbose", "a&b=verbose"] {
            assert!(!ProbeQuery::read(no).verbose, "{no}");
        }
        assert_eq!(ProbeQuery::read("exclude=a&x&exclude=b.c&verbose").exclude, ["a", "b.c"]);
    }

    #[test]
    fn the_heaviest_accepted_form_wins() {
        let offered = ["application/json", "application/health+json"];
        for (accept, position) in [
            ("", 0),
            ("*/*", 0),
            ("text/html", 0),
            ("application/health+json", 1),
            ("application/health+json;q=0.5, application/json", 0),
            ("application/json;q=0.8, Application/Health+JSON;q=0.9", 1),
            ("application/health+json;q=0", 0),
            ("text/html, application/health+json;q=0.9, */*;q=0.8", 1),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            assert_eq!(accepted(&headers, &offered), position, "{accept}");
        }
        assert_eq!(accepted(&HeaderMap::new(), &offered), 0);
    }
}
