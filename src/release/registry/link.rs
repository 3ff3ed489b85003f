//! `Link: <…>; rel="next"` (RFC 8288): where the next page of a list is. Only ever a page of the same list.

use http::{HeaderValue, Uri};

use super::error::RegistryError;
use super::origin::Origin;
use super::shown;

/// The URL of the next page; `None` when this is the last.
///
/// # Errors
/// [`RegistryError::Link`] when it leads anywhere but to the list at `path` of `origin`.
pub(super) fn next(link: &HeaderValue, origin: &Origin, path: &str) -> Result<Option<String>, RegistryError> {
    let text = link.to_str().map_err(|_| RegistryError::Link("not text".to_owned()))?;
    let Some(target) = target(text) else { return Ok(None) };
    let url = match target.as_bytes() {
        [b'/', b'/', ..] => target.to_owned(),
        [b'/', ..] => format!("{origin}{target}"),
        [b'?', ..] => format!("{origin}{path}{target}"),
        _ => target.to_owned(),
    };
    let foreign = || RegistryError::Link(shown(target));
    let uri: Uri = url.parse().map_err(|_| foreign())?;
    let same_list = Origin::of(&uri).as_ref() == Some(origin) && decoded(uri.path()) == path;
    if same_list && url.len() <= MAX_URL { Ok(Some(url)) } else { Err(foreign()) }
}

/// The target of the link with the relation `next`.
fn target(text: &str) -> Option<&str> {
    let mut rest = text;
    loop {
        let (_, after) = rest.split_once('<')?;
        let (target, after) = after.split_once('>')?;
        let (parameters, more) = match after.split_once('<') {
            Some((parameters, _)) => (parameters, Some(&after[parameters.len()..])),
            None => (after, None),
        };
        let is_next = |parameter: &str| {
            let (name, value) = parameter.split_once('=')?;
            let value = value.trim().trim_end_matches(',').trim().trim_matches('"');
            (name.trim().eq_ignore_ascii_case("rel") && value.split(' ').any(|rel| rel.eq_ignore_ascii_case("next")))
                .then_some(())
        };
        if parameters.split(';').any(|parameter| is_next(parameter).is_some()) {
            return Some(target);
        }
        rest = more?;
    }
}

/// Some registries write the colon of a digest as an escape.
fn decoded(path: &str) -> String {
    path.replace("%3A", ":").replace("%3a", ":")
}

const MAX_URL: usize = 4096;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_list_has_next_pages() {
        let origin = Origin::of(&"https://r.example/".parse().unwrap()).unwrap();
        let path = "/v2/a/referrers/sha256:00";
        let read = |text: &str| next(&HeaderValue::from_str(text).unwrap(), &origin, path);
        let page = |query: &str| Some(format!("https://r.example{path}{query}"));
        assert_eq!(read("</v2/a/referrers/sha256:00?last=x&n=2>; rel=\"next\"").unwrap(), page("?last=x&n=2"));
        assert_eq!(read("<?last=x>; rel=next").unwrap(), page("?last=x"));
        assert_eq!(read("<https://r.example:443/v2/a/referrers/sha256:00?n=1>; rel=\"next\"").unwrap(), {
            Some(format!("https://r.example:443{path}?n=1"))
        });
        assert_eq!(read("</x>; rel=\"prev\", <?last=y>; title=\"a\"; rel=\"next\"").unwrap(), page("?last=y"));
        for none in ["", "</x>; rel=\"prev\"", "nonsense"] {
            assert_eq!(read(none).unwrap(), None, "{none}");
        }
        for foreign in [
            "<https://evil.example/v2/a/referrers/sha256:00?n=1>; rel=\"next\"",
            "<//evil.example/v2/a/referrers/sha256:00>; rel=\"next\"",
            "<http://r.example/v2/a/referrers/sha256:00>; rel=\"next\"",
            "</v2/b/referrers/sha256:00>; rel=\"next\"",
            "</v2/a/referrers/sha256:01>; rel=\"next\"",
            "<https://r.example@evil.example/v2/a/referrers/sha256:00>; rel=\"next\"",
            "<other>; rel=\"next\"",
        ] {
            assert!(read(foreign).is_err(), "{foreign}");
        }
    }
}
