//! The checksum behind every stored value.
//!
//! The engine's own checksums tell damaged blocks; this one covers key and value, so that a value that was written or
//! read at a wrong place is noticed too.

use std::io::{self, ErrorKind};

/// Length of the CRC32C.
pub(in crate::store) const SEAL_LEN: usize = 4;

fn checksum(key: &[u8], value: &[u8]) -> [u8; SEAL_LEN] {
    crc32c::crc32c_append(crc32c::crc32c(key), value).to_le_bytes()
}

/// Puts the checksum behind a value.
pub(in crate::store) fn seal(key: &[u8], mut value: Vec<u8>) -> Vec<u8> {
    let seal = checksum(key, &value);
    value.extend(seal);
    value
}

/// The value without its checksum, which must fit.
pub(in crate::store) fn open<'a>(what: &str, key: &[u8], sealed: &'a [u8]) -> io::Result<&'a [u8]> {
    match sealed.split_last_chunk::<SEAL_LEN>() {
        Some((value, seal)) if checksum(key, value) == *seal => Ok(value),
        _ => {
            let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
            let text = format!("value of {what} {digits} is damaged: its checksum does not match");
            Err(io::Error::new(ErrorKind::InvalidData, text))
        }
    }
}

/// [`open`] in place.
pub(in crate::store) fn open_owned(what: &str, key: &[u8], mut sealed: Vec<u8>) -> io::Result<Vec<u8>> {
    let len = open(what, key, &sealed)?.len();
    sealed.truncate(len);
    Ok(sealed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_opens_under_its_own_key_only() {
        let sealed = seal(b"key", b"value".to_vec());
        assert_eq!(open("x", b"key", &sealed).unwrap(), b"value");
        assert_eq!(
            open_owned("x", b"key", sealed.clone()).unwrap(),
            b"value".to_vec()
        );
        let error = open("x", b"kez", &sealed).unwrap_err().to_string();
        assert_eq!(error, "value of x 6b657a is damaged: its checksum does not match");
        assert!(open("x", b"key", &sealed[..3]).is_err());
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(open("x", b"key", &damaged).is_err(), "byte {at}");
        }
    }
}
