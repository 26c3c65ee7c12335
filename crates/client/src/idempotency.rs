//! Ids of activations that are named by an idempotency key instead of being drawn.
//!
//! The id is a function of namespace, action and key, so whoever submits the same again, from wherever, submits the
//! same id, and the journal tells whether it knows it. Nothing else is remembered for a key.

use sha2::{Digest, Sha256};
use whiskraft_types::{ActionName, ActivationId, NamespaceName};

/// Longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_LEN_MAX: usize = 256;
/// Begins what is hashed; another way to derive ids gets another one.
const DOMAIN: &str = "whiskraft-idempotency-v1";

/// The id of the activation that an idempotency key names: the first 16 bytes of the SHA-256 of a domain, the
/// invocation namespace, the action and the key, with a zero byte between them, which no name contains.
///
/// ```
/// use whiskraft_client::idempotent_id;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (guest, hello) = ("guest".parse()?, "guest/hello".parse()?);
/// assert_eq!(idempotent_id(&guest, &hello, "order-7"), idempotent_id(&guest, &hello, "order-7"));
/// assert_ne!(idempotent_id(&guest, &hello, "order-7"), idempotent_id(&guest, &hello, "order-8"));
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn idempotent_id(namespace: &NamespaceName, action: &ActionName, key: &str) -> ActivationId {
    let mut hash = Sha256::new_with_prefix(DOMAIN);
    for part in [namespace.as_str(), action.as_str(), key] {
        hash.update([0]);
        hash.update(part);
    }
    let hash: [u8; 32] = hash.finalize().into();
    let (id, _) = hash.split_first_chunk().expect("a hash has 32 bytes, an id 16");
    ActivationId::from_bytes(*id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(namespace: &str, action: &str, key: &str) -> ActivationId {
        idempotent_id(&namespace.parse().unwrap(), &action.parse().unwrap(), key)
    }

    #[test]
    fn the_id_of_a_key_is_pinned() {
        // printf 'whiskraft-idempotency-v1\0guest\0guest/hello\0order-7' | sha256sum
        assert_eq!(
            id("guest", "guest/hello", "order-7").to_string(),
            "219dd0c4f1dbd2fc33811791fea061db"
        );
    }

    #[test]
    fn a_key_belongs_to_its_namespace_and_action() {
        let known = id("guest", "guest/hello", "a");
        for other in [
            id("guests", "guest/hello", "a"),
            id("guest", "guest/hell", "a"),
            id("guest", "guest/hello", "b"),
            id("guest", "guest/hello", ""),
        ] {
            assert_ne!(other, known);
        }
    }
}
