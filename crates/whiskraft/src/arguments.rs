//! Arguments that several commands share: whole numbers, and `key=value` as JSON (parameters, annotations, what a result
//! must contain).

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};

use crate::exit::{Exit, Failure};

/// Reads a whole number from `MIN` to `MAX`; says in words what is wrong with another one.
pub(crate) fn whole<T: TryFrom<u64>, const MIN: u64, const MAX: u64>(text: &str) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| (MIN..=MAX).contains(number));
    let wanted = || match (MIN, MAX) {
        (0, MOST..) => "a whole number".to_owned(),
        (min, MOST..) => format!("a whole number, {min} or more"),
        (min, max) => format!("a whole number from {min} to {max}"),
    };
    number
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| format!("must be {}", wanted()))
}

/// A largest number that nobody needs to be told.
pub(crate) const MOST: u64 = u32::MAX as u64;

/// Reads a number of invocations per second.
pub(crate) fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = text
        .parse::<f64>()
        .ok()
        .filter(|rate| rate.is_finite() && *rate > 0.0);
    rate.ok_or_else(|| format!("{text:?} must be a number above 0, invocations per second"))
}

/// Reads `key=value`; a value that is not JSON is a string.
pub(crate) fn parse_pair(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text
        .split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .ok_or_else(|| format!("{text:?} must be KEY=VALUE, for example name=Ada or list='[1, 2]'"))?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok((key.to_owned(), value))
}

/// The pairs as a map; a later pair of the same key wins.
pub(crate) fn pairs(pairs: &[(String, Value)]) -> BTreeMap<String, Value> {
    pairs.iter().cloned().collect()
}

/// The arguments of an invocation: a file (`-` is standard input) overlaid with the pairs.
///
/// # Errors
/// If the file cannot be read or is not JSON, or pairs are given beside an array.
pub(crate) fn payload(file: Option<&Path>, given: &[(String, Value)]) -> Result<Value, Failure> {
    let base = match file {
        Some(path) => read_json(path)?,
        None => Value::Object(Map::new()),
    };
    match base {
        Value::Object(mut map) => {
            map.extend(given.iter().cloned());
            Ok(Value::Object(map))
        }
        other if given.is_empty() => Ok(other),
        _ => Err(Failure::new(
            Exit::Usage,
            "--param adds to a JSON object, but the parameter file holds none",
        )),
    }
}

fn read_json(path: &Path) -> Result<Value, Failure> {
    let shown = path.display();
    let wrong = |what: &str| Failure::new(Exit::Usage, format!("{what} {shown}"));
    let text = if path == Path::new("-") {
        let mut text = Vec::new();
        std::io::stdin().read_to_end(&mut text).map(|_| text)
    } else {
        std::fs::read(path)
    };
    let text = text.map_err(|error| wrong("cannot read parameter file").caused_by(error))?;
    serde_json::from_slice(&text).map_err(|error| wrong("parameters are not JSON:").caused_by(error))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_json_or_text() {
        assert_eq!(parse_pair("n=7"), Ok(("n".to_owned(), json!(7))));
        assert_eq!(parse_pair("n=seven"), Ok(("n".to_owned(), json!("seven"))));
        assert_eq!(parse_pair("n=\"7\""), Ok(("n".to_owned(), json!("7"))));
        assert_eq!(parse_pair("n=a=b"), Ok(("n".to_owned(), json!("a=b"))));
        assert!(parse_pair("n").is_err() && parse_pair("=7").is_err());
    }

    #[test]
    fn a_number_that_is_none_or_out_of_range_is_told_what_it_may_be() {
        assert_eq!(whole::<u32, 1, 10>("10"), Ok(10));
        assert_eq!(
            whole::<u64, 0, { u64::MAX }>("18446744073709551615"),
            Ok(u64::MAX)
        );
        for text in ["0", "11", "-1", "1.5", "many", "99999999999999999999"] {
            let refused = whole::<u32, 1, 10>(text);
            assert_eq!(
                refused,
                Err("must be a whole number from 1 to 10".to_owned()),
                "{text}"
            );
        }
        let zero = whole::<std::num::NonZeroU64, 1, { u64::MAX }>("0");
        assert_eq!(zero, Err("must be a whole number, 1 or more".to_owned()));
        assert_eq!(
            whole::<u32, 0, MOST>("4294967296"),
            Err("must be a whole number".to_owned())
        );
    }

    #[test]
    fn a_rate_is_a_number_above_zero() {
        assert_eq!(parse_rate("0.5"), Ok(0.5));
        for text in ["0", "-1", "inf", "NaN", "many"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn pairs_overlay_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), r#"{"a": 1, "b": 2}"#).unwrap();
        let merged = payload(Some(file.path()), &[("b".to_owned(), json!(3))]).unwrap();
        assert_eq!(merged, json!({"a": 1, "b": 3}));
        std::fs::write(file.path(), "[1]").unwrap();
        assert_eq!(payload(Some(file.path()), &[]).unwrap(), json!([1]));
        assert!(payload(Some(file.path()), &[("b".to_owned(), json!(3))]).is_err());
        std::fs::write(file.path(), "{").unwrap();
        assert!(
            payload(Some(file.path()), &[])
                .unwrap_err()
                .to_string()
                .contains("not JSON")
        );
    }
}
