//! StellaOps versions, and which of two is newer.

use std::cmp::Ordering;
use std::str::FromStr;

/// A version as StellaOps writes them, of one of two schemes:
///
/// - calendar, `YYYY.MM[.PATCH][-SUFFIX]`: the first number is a year from 2000 to 9999, the second a month;
/// - semantic, `MAJOR.MINOR.PATCH[-PRERELEASE][+BUILD]` (Semantic Versioning 2.0.0).
///
/// Within a scheme versions are ordered by their numbers, a patch that is left out being 0. Of two with the same
/// numbers the one with a suffix is the older, as a pre-release is; two suffixes are ordered as Semantic Versioning,
/// section 11 has it. Build metadata is ignored. Across schemes there is no order.
#[derive(Clone, Debug)]
pub(super) struct Version {
    scheme: Scheme,
    numbers: [u32; 3],
    suffix: Option<Box<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Calendar,
    Semantic,
}

/// The text is no version of either scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

impl Version {
    /// The release year, which only a calendar version names.
    pub(super) fn year(&self) -> Option<u32> {
        (self.scheme == Scheme::Calendar).then_some(self.numbers[0])
    }

    /// How this version is ordered relative to `other`; `None` across schemes.
    pub(super) fn compare(&self, other: &Self) -> Option<Ordering> {
        let suffixes = || match (&self.suffix, &other.suffix) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(mine), Some(others)) => compare_suffixes(mine, others),
        };
        (self.scheme == other.scheme).then(|| self.numbers.cmp(&other.numbers).then_with(suffixes))
    }
}

impl FromStr for Version {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        if text.len() > MAX_BYTES {
            return Err(Unreadable);
        }
        let (text, build) = split_off(text, '+');
        let (numbers, suffix) = split_off(text, '-');
        if ![build, suffix].into_iter().flatten().all(is_dotted) {
            return Err(Unreadable);
        }
        let parts: Vec<&str> = numbers.split('.').collect();
        let (scheme, numbers) = match parts[..] {
            [year, month] if is_year(year) => (Scheme::Calendar, [number(year)?, month_number(month)?, 0]),
            [year, month, patch] if is_year(year) => {
                (Scheme::Calendar, [number(year)?, month_number(month)?, number(patch)?])
            }
            [major, minor, patch] if parts.iter().all(|part| *part == "0" || !part.starts_with('0')) => {
                (Scheme::Semantic, [number(major)?, number(minor)?, number(patch)?])
            }
            _ => return Err(Unreadable),
        };
        Ok(Self { scheme, numbers, suffix: suffix.map(Into::into) })
    }
}

fn split_off(text: &str, separator: char) -> (&str, Option<&str>) {
    text.split_once(separator).map_or((text, None), |(before, after)| (before, Some(after)))
}

fn is_year(part: &str) -> bool {
    part.len() == 4 && !part.starts_with(['0', '1']) && part.bytes().all(|b| b.is_ascii_digit())
}

fn month_number(part: &str) -> Result<u32, Unreadable> {
    number(part)
        .and_then(|month| if part.len() <= 2 && (1..=12).contains(&month) { Ok(month) } else { Err(Unreadable) })
}

fn number(part: &str) -> Result<u32, Unreadable> {
    // `parse` alone would take a sign.
    if part.bytes().all(|b| b.is_ascii_digit()) { part.parse().map_err(|_| Unreadable) } else { Err(Unreadable) }
}

fn is_dotted(text: &str) -> bool {
    text.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
}

fn compare_suffixes(mine: &str, others: &str) -> Ordering {
    let (mut mine, mut others) = (mine.split('.'), others.split('.'));
    loop {
        let order = match (mine.next(), others.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(a), Some(b)) => compare_identifiers(a, b),
        };
        if order.is_ne() {
            return order;
        }
    }
}

fn compare_identifiers(a: &str, b: &str) -> Ordering {
    let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    match (is_number(a), is_number(b)) {
        // By length first: as numbers of any size compare.
        (true, true) => {
            let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
            a.len().cmp(&b.len()).then_with(|| a.cmp(b))
        }
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => a.cmp(b),
    }
}

const MAX_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn versions_of_one_scheme_are_ordered() {
        let ascending = [
            &["2025.12", "2026.01-edge", "2026.01-rc.2", "2026.01-rc.10", "2026.1", "2026.01.1-rc1", "2026.01.1"][..],
            &["2026.01.9", "2026.01.10", "2026.02", "2026.10", "2027.01-alpha", "2027.01"],
            // Semantic Versioning 2.0.0, section 11.
            &["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11"],
            &["1.0.0-rc.1", "1.0.0", "1.0.1", "1.1.0", "1.10.0", "2.0.0", "2.0.1-0", "2.0.1-99999999999999999999999"],
        ];
        for versions in ascending {
            let versions: Vec<Version> = versions.iter().map(|text| text.parse().unwrap()).collect();
            for (i, a) in versions.iter().enumerate() {
                for (j, b) in versions.iter().enumerate() {
                    assert_eq!(a.compare(b), Some(i.cmp(&j)), "{a:?} {b:?}");
                }
            }
        }
    }

    #[test]
    fn spellings_of_one_version_are_equal() {
        for (a, b) in
            [("2026.3", "2026.03"), ("2026.03", "2026.03.0"), ("1.2.3+a", "1.2.3+b"), ("2026.03-rc.1", "2026.3-rc.01")]
        {
            let (a, b): (Version, Version) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(a.compare(&b), Some(Ordering::Equal));
        }
    }

    #[test]
    fn schemes_do_not_compare_and_only_one_has_years() {
        let (calendar, semantic): (Version, Version) = ("2026.03".parse().unwrap(), "3.0.0".parse().unwrap());
        assert_eq!(calendar.compare(&semantic), None);
        assert_eq!(semantic.compare(&calendar), None);
        assert_eq!((calendar.year(), semantic.year()), (Some(2026), None));
    }

    #[test]
    fn what_is_no_version_is_unreadable() {
        let long = format!("1.0.0-{}", "a".repeat(64));
        for wrong in [
            "",
            "2026",
            "2026.",
            "2026.13",
            "2026.00",
            "2026.003",
            "2026.03.1.2",
            "v2026.03",
            " 2026.03",
            "2026.03 ",
            "2026.+3",
            "2026.-3",
            "1.2",
            "1.2.3.4",
            "01.2.3",
            "1.02.3",
            "1.2.x",
            "1.2.3-",
            "1.2.3+",
            "1.2.3-a..b",
            "1.2.3-ä",
            "1.2.99999999999",
            "+1.2.3",
            "٢٠٢٦.03",
            "latest",
            &long,
        ] {
            assert!(wrong.parse::<Version>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}", versionlike in "[0-9.+a-z-]{0,20}") {
            for text in [text, versionlike] {
                if let Ok(version) = text.parse::<Version>() {
                    prop_assert_eq!(version.compare(&version), Some(Ordering::Equal));
                }
            }
        }
    }
}
