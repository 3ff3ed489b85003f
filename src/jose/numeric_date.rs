//! The time type of JWT claims.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

use crate::clock::UnixTime;

/// A `NumericDate` (RFC 7519, section 2): seconds since 1970, where a fraction is allowed and dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NumericDate(pub UnixTime);

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Seconds)
    }
}

struct Seconds;

impl de::Visitor<'_> for Seconds {
    type Value = NumericDate;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of seconds since 1970 before the year 10000")
    }

    fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<NumericDate, E> {
        i64::try_from(seconds).map_err(|_| out_of_range()).and_then(|seconds| self.visit_i64(seconds))
    }

    fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<NumericDate, E> {
        if (0..YEAR_10000).contains(&seconds) { Ok(NumericDate(UnixTime(seconds))) } else { Err(out_of_range()) }
    }

    fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<NumericDate, E> {
        // NaN is not contained either. The cast is exact after floor: the range is far below 2^53.
        if (0.0..YEAR_10000 as f64).contains(&seconds) {
            self.visit_i64(seconds.floor() as i64)
        } else {
            Err(out_of_range())
        }
    }
}

fn out_of_range<E: de::Error>() -> E {
    E::custom("a time before 1970 or after the year 9999")
}

/// 10000-01-01T00:00:00Z. Bounding times here keeps every later sum of times far from overflow.
const YEAR_10000: i64 = 253_402_300_800;
