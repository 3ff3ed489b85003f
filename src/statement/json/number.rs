//! Which numbers are accepted: those of the rules in the [module's documentation](super).

use super::error::Problem;

/// A scanned number: it ends before `end`, and is canonical as it stands or not.
pub(super) struct Scanned {
    pub(super) end: usize,
    pub(super) canonical: bool,
}

/// Scans the number that begins at `start`.
#[inline(always)]
pub(super) fn scan(input: &[u8], start: usize) -> Result<Scanned, (Problem, usize)> {
    let digits = start + usize::from(input.get(start) == Some(&b'-'));
    let end = skip_digits(input, digits);
    let length = end - digits;
    let leading_zero = input.get(digits) == Some(&b'0');
    if length == 0 || leading_zero && length > 1 {
        return Err(if end == input.len() && length == 0 {
            (Problem::Truncated, end)
        } else {
            (Problem::Number, start)
        });
    }
    if matches!(input.get(end), Some(b'.' | b'e' | b'E')) {
        return scan_decimal(input, start, digits, end);
    }
    if length >= MAX_INTEGER.len() && (length > MAX_INTEGER.len() || &input[digits..end] > MAX_INTEGER) {
        return Err((Problem::IntegerRange, start));
    }
    Ok(Scanned { end, canonical: digits == start || !leading_zero })
}

/// The canonical text of an accepted number (RFC 8785, section 3.2.2.3), in `buffer`.
pub(in crate::statement) fn canonical<'b>(text: &[u8], buffer: &'b mut ryu_js::Buffer) -> Option<&'b str> {
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    value.is_finite().then(|| buffer.format_finite(value))
}

#[inline(never)]
fn scan_decimal(input: &[u8], start: usize, digits: usize, integer_end: usize) -> Result<Scanned, (Problem, usize)> {
    let malformed = |end| if end == input.len() { (Problem::Truncated, end) } else { (Problem::Number, start) };
    let mut end = integer_end;
    if input.get(end) == Some(&b'.') {
        end = skip_digits(input, end + 1);
        if end == integer_end + 1 {
            return Err(malformed(end));
        }
    }
    if let Some(b'e' | b'E') = input.get(end) {
        let from = end + 1 + usize::from(matches!(input.get(end + 1), Some(b'+' | b'-')));
        end = skip_digits(input, from);
        if end == from {
            return Err(malformed(end));
        }
    } else if is_plain(&input[digits..integer_end], &input[integer_end + 1..end]) {
        return Ok(Scanned { end, canonical: true });
    }
    let text = &input[start..end];
    let mut buffer = ryu_js::Buffer::new();
    let canonical = canonical(text, &mut buffer).ok_or((Problem::NumberLoss, start))?.as_bytes();
    // The spelling may differ; the number may not.
    let value = Decimal::read(text).ok_or((Problem::NumberLoss, start))?;
    if Some(value) != Decimal::read(canonical) {
        return Err((Problem::NumberLoss, start));
    }
    let unsigned = canonical.strip_prefix(b"-").unwrap_or(canonical);
    let is_integer = unsigned.iter().all(u8::is_ascii_digit);
    if is_integer && (unsigned.len(), unsigned) > (MAX_INTEGER.len(), MAX_INTEGER) {
        return Err((Problem::IntegerRange, start));
    }
    Ok(Scanned { end, canonical: canonical == text })
}

/// A plain decimal of at most 15 significant digits, no needless zero at its end, and not below 10^-6. Such a number
/// is its own shortest form: no two of them share a double, so none shorter denotes the same one, and ECMAScript
/// writes this range without exponent.
fn is_plain(integer: &[u8], fraction: &[u8]) -> bool {
    let zeros = fraction.iter().take_while(|digit| **digit == b'0').count();
    let (significant, large_enough) = match integer {
        b"0" => (fraction.len() - zeros, zeros < 6),
        _ => (integer.len() + fraction.len(), true),
    };
    significant <= 15 && large_enough && fraction.last() != Some(&b'0')
}

/// A decimal number in normal form: ± 0.digits × 10^exponent, the first digit not zero and zeros behind the last. Zero
/// has no digits, no sign and no exponent.
#[derive(PartialEq, Eq)]
struct Decimal {
    negative: bool,
    digits: [u8; MAX_DIGITS],
    exponent: i64,
}

impl Decimal {
    /// Reads a number of JSON's grammar; `None` when it has more digits than any double prints.
    fn read(text: &[u8]) -> Option<Self> {
        let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |text| (true, text));
        let split = text.iter().position(|byte| matches!(byte, b'e' | b'E')).unwrap_or(text.len());
        let (mantissa, exponent) = text.split_at(split);
        let point = mantissa.iter().position(|byte| *byte == b'.');
        let fraction_length = point.map_or(0, |point| mantissa.len() - point - 1);
        let significant = mantissa.iter().filter(|byte| **byte != b'.').skip_while(|digit| **digit == b'0');

        let mut digits = [0; MAX_DIGITS];
        let mut count = 0;
        let mut zeros = 0;
        for digit in significant {
            if *digit == b'0' {
                zeros += 1;
                continue;
            }
            count += zeros;
            *digits.get_mut(count)? = digit - b'0';
            count += 1;
            zeros = 0;
        }
        if count == 0 {
            return Some(Self { negative: false, digits, exponent: 0 });
        }
        let exponent: i64 = match exponent {
            [] => 0,
            [_, exponent @ ..] => std::str::from_utf8(exponent).ok()?.parse().ok()?,
        };
        let shift = i64::try_from(zeros).ok()? - i64::try_from(fraction_length).ok()?;
        let exponent = exponent.checked_add(shift)?.checked_add(i64::try_from(count).ok()?)?;
        Some(Self { negative, digits, exponent })
    }
}

#[inline(always)]
fn skip_digits(input: &[u8], mut at: usize) -> usize {
    while input.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    at
}

/// 2^53−1 (RFC 7493, section 2.2).
const MAX_INTEGER: &[u8] = b"9007199254740991";

/// Digits that identify any double, and so the most that ECMAScript prints (RFC 8785, appendix B shows some).
const MAX_DIGITS: usize = 17;
