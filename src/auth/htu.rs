//! Comparing the URI that a proof names with the one that was called.

/// Scheme and authority under which clients call the appliance, normalised.
#[derive(Debug)]
pub(super) struct PublicUrl {
    origin: String,
}

impl PublicUrl {
    /// Takes `https://host[:port]`.
    pub(super) fn parse(url: &str) -> Result<Self, &'static str> {
        if !url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://")) {
            return Err("it does not begin with https://");
        }
        if url.contains(['?', '#']) {
            return Err("it has a query or a fragment");
        }
        let normal = normalise(url)?;
        match normal.strip_suffix('/') {
            Some(origin) if !origin[8..].contains('/') => Ok(Self { origin: origin.to_owned() }),
            _ => Err("it has a path; name scheme and authority only"),
        }
    }

    /// Does `htu` name what was called: `path` here? Query and fragment of `htu` do not count (RFC 9449, section 4.3,
    /// check 9), spellings of the same URI do not differ (RFC 3986, sections 6.2.2 and 6.2.3).
    pub(super) fn names(&self, htu: &str, path: &str) -> bool {
        // Nearly every client writes exactly what it calls; equal text is the same URI without further work.
        htu.strip_prefix(&self.origin) == Some(path)
            || matches!((normalise(htu), normalise(&format!("{}{path}", self.origin))), (Ok(a), Ok(b)) if a == b)
    }
}

/// The one spelling of an absolute http(s) URI, without its query and fragment.
fn normalise(uri: &str) -> Result<String, &'static str> {
    if !uri.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') {
        return Err("it has characters that no URI has");
    }
    let uri = &uri[..uri.find(['?', '#']).unwrap_or(uri.len())];
    let (scheme, rest) = uri.split_once("://").ok_or("it is no absolute URI")?;
    let scheme = scheme.to_ascii_lowercase();
    let default_port = match scheme.as_str() {
        "https" => 443,
        "http" => 80,
        _ => return Err("its scheme is neither https nor http"),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = split_port(authority)?;
    let mut normal = format!("{scheme}://{}", host.to_ascii_lowercase());
    if let Some(port) = port.filter(|port| *port != default_port) {
        normal.push(':');
        normal.push_str(&port.to_string());
    }
    push_path(&mut normal, &normalise_percent(path)?);
    Ok(normal)
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), &'static str> {
    let (host, rest) = if authority.starts_with('[') {
        authority.split_at(authority.find(']').ok_or("its host is malformed")? + 1)
    } else {
        authority.split_at(authority.find(':').unwrap_or(authority.len()))
    };
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let well_formed = match literal {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(is_unreserved),
    };
    if !well_formed {
        return Err("its host is malformed");
    }
    match rest.strip_prefix(':') {
        None if rest.is_empty() => Ok((host, None)),
        Some("") => Ok((host, None)),
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            port.parse().map(|port| (host, Some(port))).map_err(|_| "its port is out of range")
        }
        _ => Err("its port is malformed"),
    }
}

/// Escapes of unreserved characters are undone, the hexadecimal digits of the others are upper case.
fn normalise_percent(path: &str) -> Result<String, &'static str> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let escape = rest.get(at + 1..at + 3).filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let escape = escape.ok_or("it has a percent sign without two hexadecimal digits")?;
        let byte = u8::from_str_radix(escape, 16).map_err(|_| "it has a malformed escape")?;
        if is_unreserved(byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push_str(&escape.to_ascii_uppercase());
        }
        rest = &rest[at + 3..];
    }
    out.push_str(rest);
    Ok(out)
}

/// RFC 3986, section 5.2.4, for an absolute path; an empty one becomes `/` (section 6.2.3).
fn push_path(out: &mut String, path: &str) {
    let mut segments: Vec<&str> = Vec::new();
    let mut all = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = all.next() {
        let last = all.peek().is_none();
        match segment {
            "." => {}
            ".." => {
                segments.pop();
            }
            _ => segments.push(segment),
        }
        if last && matches!(segment, "." | "..") {
            segments.push("");
        }
    }
    for segment in &segments {
        out.push('/');
        out.push_str(segment);
    }
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spellings_of_one_uri_are_equal() {
        let here = PublicUrl::parse("https://signer.example:8443").unwrap();
        let path = "/api/v1/signer/sign/dsse";
        let same = [
            "https://signer.example:8443/api/v1/signer/sign/dsse",
            "HTTPS://Signer.EXAMPLE:8443/api/v1/signer/sign/dsse",
            "https://signer.example:08443/api/v1/signer/sign/dsse",
            "https://signer.example:8443/api/v1/signer/sign/dsse?x=1",
            "https://signer.example:8443/api/v1/signer/sign/dsse#top",
            "https://signer.example:8443/api/v1/signer/sign/dsse?x=/../#y",
            "https://signer.example:8443/api/v1/./signer/sign/dsse",
            "https://signer.example:8443/api/v2/../v1/signer/sign/dsse",
            "https://signer.example:8443/../api/v1/signer/sign/dsse",
            "https://signer.example:8443/api/v1/signer/%73ign/dsse",
            "https://signer.example:8443/api/%2e%2E/api/v1/signer/sign/dsse",
        ];
        for htu in same {
            assert!(here.names(htu, path), "{htu}");
        }
        let other = [
            "",
            "https://signer.example:8443",
            "https://signer.example/api/v1/signer/sign/dsse",
            "http://signer.example:8443/api/v1/signer/sign/dsse",
            "https://signer.example.:8443/api/v1/signer/sign/dsse",
            "https://evil.example:8443/api/v1/signer/sign/dsse",
            "https://user@signer.example:8443/api/v1/signer/sign/dsse",
            "https://signer.example:8443@evil.example/api/v1/signer/sign/dsse",
            "https://signer.example:8443/api/v1/signer/sign/dsse/",
            "https://signer.example:8443/api/v1/signer/sign/DSSE",
            "https://signer.example:8443//api/v1/signer/sign/dsse",
            "https://signer.example:8443/api/v1/signer/sign%2Fdsse",
            "https://signer.example:8443/api/v1/signer/sign/dsse%",
            "https://signer.example:8443/api/v1/signer/sign/dsse%0",
            "https://signer.example:8443/api/v1/signer/sign/dsse%zz",
            "https://signer.example:8443/api/v1/signer/sign/dsse%2B",
            "https://signer.example:8443/api/v1/signer/sign/dsse ",
            "https://signer.example:8443\\api/v1/signer/sign/dsse",
            "https://signer.example:+8443/api/v1/signer/sign/dsse",
            "https://signer.example:98443/api/v1/signer/sign/dsse",
            "https://signer.example:8443x/api/v1/signer/sign/dsse",
            "https://[::1/api/v1/signer/sign/dsse",
            "https://[]:8443/api/v1/signer/sign/dsse",
            "https:///api/v1/signer/sign/dsse",
            "ftp://signer.example:8443/api/v1/signer/sign/dsse",
            "/api/v1/signer/sign/dsse",
            "https://signer.example:8443/api/v1/signer/sign/dssé",
        ];
        for htu in other {
            assert!(!here.names(htu, path), "{htu}");
        }
    }

    #[test]
    fn a_default_port_may_be_left_out_or_written() {
        let same = ["https://signer.example/a", "https://signer.example:443/a", "https://signer.example:/a"];
        for here in [
            "https://signer.example",
            "https://signer.example:443",
            "https://signer.example/",
            "HTTPS://SIGNER.example:",
        ] {
            for htu in same {
                assert!(PublicUrl::parse(here).unwrap().names(htu, "/a"), "{here} {htu}");
            }
        }
        let v6 = PublicUrl::parse("https://[2001:DB8::1]:443").unwrap();
        assert!(v6.names("https://[2001:db8::1]/a", "/a"));
        assert!(PublicUrl::parse("https://signer.example").unwrap().names("https://signer.example", "/"));
    }

    #[test]
    fn a_public_url_is_scheme_and_authority() {
        let wrong = [
            "",
            "signer.example",
            "http://signer.example",
            "https://",
            "https://a/b",
            "https://a?b",
            "https://a#",
            "https://u@a",
            "https:/a",
        ];
        for url in wrong {
            assert!(PublicUrl::parse(url).is_err(), "{url}");
        }
    }

    proptest! {
        #[test]
        fn normal_form_is_stable(path in "(/|\\.|%2[eEfF]|[a-c~]|%41|\\.\\./)*", port in proptest::option::of(any::<u16>())) {
            let port = port.map(|port| format!(":{port}")).unwrap_or_default();
            if let Ok(once) = normalise(&format!("https://Host.example{port}/{path}")) {
                prop_assert_eq!(normalise(&once).unwrap(), once.clone());
                let escaped = once.contains("/./") || once.contains("/../") || once.ends_with("/..");
                prop_assert!(!escaped, "{}", once);
            }
        }

        #[test]
        fn no_input_panics(text in "\\PC{0,60}") {
            let _ = normalise(&text);
            let _ = normalise(&format!("https://{text}"));
            let _ = PublicUrl::parse(&text);
        }
    }
}
