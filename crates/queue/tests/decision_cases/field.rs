//! Fields of a case, with errors that name what is missing.

use serde_json::Value;

/// How a case was answered.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// As the file expects.
    AsOriginal,
    /// The file pins a flaw; this is what we do.
    Instead {
        /// What the file expects.
        original: String,
        /// What we do.
        ours: String,
        /// Why.
        because: &'static str,
    },
}

/// An object of the file.
pub(crate) struct Fields<'a>(&'a Value);

impl<'a> Fields<'a> {
    pub(crate) fn new(value: &'a Value) -> Self {
        Self(value)
    }

    pub(crate) fn value(&self, name: &str) -> Result<&'a Value, String> {
        self.0
            .get(name)
            .ok_or_else(|| format!("field {name:?} is missing"))
    }

    pub(crate) fn object(&self, name: &str) -> Result<Self, String> {
        let value = self.value(name)?;
        if value.is_object() {
            Ok(Self(value))
        } else {
            Err(format!("field {name:?} is not an object"))
        }
    }

    pub(crate) fn list(&self, name: &str) -> Result<&'a Vec<Value>, String> {
        self.value(name)?
            .as_array()
            .ok_or_else(|| format!("field {name:?} is not a list"))
    }

    pub(crate) fn text(&self, name: &str) -> Result<&'a str, String> {
        self.value(name)?
            .as_str()
            .ok_or_else(|| format!("field {name:?} is not a text"))
    }

    pub(crate) fn int(&self, name: &str) -> Result<i64, String> {
        self.value(name)?
            .as_i64()
            .ok_or_else(|| format!("field {name:?} is not a whole number"))
    }

    pub(crate) fn count(&self, name: &str) -> Result<usize, String> {
        usize::try_from(self.int(name)?).map_err(|_| format!("field {name:?} is negative"))
    }

    pub(crate) fn count32(&self, name: &str) -> Result<u32, String> {
        u32::try_from(self.int(name)?).map_err(|_| format!("field {name:?} is out of range"))
    }

    pub(crate) fn millis(&self, name: &str) -> Result<u64, String> {
        u64::try_from(self.int(name)?).map_err(|_| format!("field {name:?} is negative"))
    }

    pub(crate) fn float(&self, name: &str) -> Result<f64, String> {
        self.value(name)?
            .as_f64()
            .ok_or_else(|| format!("field {name:?} is not a number"))
    }

    pub(crate) fn flag(&self, name: &str) -> Result<bool, String> {
        self.value(name)?
            .as_bool()
            .ok_or_else(|| format!("field {name:?} is not true or false"))
    }

    /// `default` if the field is not there at all.
    pub(crate) fn flag_or(&self, name: &str, default: bool) -> Result<bool, String> {
        if self.0.get(name).is_some() {
            self.flag(name)
        } else {
            Ok(default)
        }
    }

    /// Names of all fields.
    pub(crate) fn names(&self) -> Vec<&'a str> {
        self.0
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// Fails if there is a field that the caller does not check.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), String> {
        match self.names().into_iter().find(|name| !known.contains(name)) {
            Some(name) => Err(format!("nobody checks the expectation {name:?}")),
            None => Ok(()),
        }
    }
}

/// Compares, naming the expectation.
pub(crate) fn same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    expected: &T,
    found: &T,
) -> Result<(), String> {
    if expected == found {
        Ok(())
    } else {
        Err(format!("{what}: expected {expected:?}, found {found:?}"))
    }
}
