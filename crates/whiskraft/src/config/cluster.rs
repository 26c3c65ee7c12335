//! Text forms of the settings that name schedulers: `1=host:port,2=host:port` and lists of addresses.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, SeqAccess, Visitor};
use whiskraft_types::SchedulerId;

/// Why a text is not a list of initial members.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ClusterError {
    /// A part is not `id=host:port`.
    #[error("{part:?} must be ID=HOST:PORT with an id from 1 up, for example 1=10.0.0.1:7400")]
    Part { part: String },
    /// One id is given twice.
    #[error("scheduler {id} is named twice")]
    Twice { id: u64 },
    /// Two ids have one address: a vote would be counted twice.
    #[error("schedulers {first} and {second} have the same address {address}")]
    SharedAddress {
        first: u64,
        second: u64,
        address: String,
    },
}

/// Checks that `text` is `host:port`; the host is not resolved.
pub(crate) fn is_address(text: &str) -> bool {
    let port_is_valid = |port: &str| port.parse::<u16>().is_ok_and(|port| port != 0);
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains(['/', ' ', '=']) && port_is_valid(port)
    })
}

/// Reads `1=host:port,2=host:port,…`, the peer addresses of the initial members.
pub(crate) fn parse_members(text: &str) -> Result<BTreeMap<SchedulerId, String>, ClusterError> {
    let mut members: BTreeMap<SchedulerId, String> = BTreeMap::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let wrong = || ClusterError::Part {
            part: part.to_owned(),
        };
        let (id, address) = part.split_once('=').ok_or_else(wrong)?;
        let id = id
            .trim()
            .parse::<u64>()
            .ok()
            .filter(|id| *id > 0)
            .ok_or_else(wrong)?;
        let address = Some(address.trim())
            .filter(|address| is_address(address))
            .ok_or_else(wrong)?;
        if let Some((first, _)) = members
            .iter()
            .find(|(known, other)| *other == address && known.0 != id)
        {
            let address = address.to_owned();
            return Err(ClusterError::SharedAddress {
                first: first.0,
                second: id,
                address,
            });
        }
        if members.insert(SchedulerId(id), address.to_owned()).is_some() {
            return Err(ClusterError::Twice { id });
        }
    }
    Ok(members)
}

/// Reads a list that may be written as an array or as one text with commas (the form of environment and flags).
pub(crate) fn list<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    struct List;

    impl<'de> Visitor<'de> for List {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of texts, or one text with commas")
        }

        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(text
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .map(str::to_owned)
                .collect())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut parts = Vec::new();
            while let Some(part) = seq.next_element()? {
                parts.push(part);
            }
            Ok(parts)
        }
    }

    from.deserialize_any(List)
}

/// Reads `1=host:port,…` given as one text or as an array of its parts.
pub(crate) fn members<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<SchedulerId, String>, D::Error> {
    parse_members(&list(from)?.join(",")).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_by_id() {
        let members = parse_members("2=b:7400, 1=[::1]:7400").unwrap();
        let wanted = [
            (SchedulerId(1), "[::1]:7400".to_owned()),
            (SchedulerId(2), "b:7400".to_owned()),
        ];
        assert!(members.into_iter().eq(wanted));
    }

    #[test]
    fn members_refuse_what_would_split_a_cluster() {
        assert_eq!(parse_members("1=a:1,1=b:1"), Err(ClusterError::Twice { id: 1 }));
        assert!(matches!(
            parse_members("1=a:1,2=a:1"),
            Err(ClusterError::SharedAddress { .. })
        ));
        for text in [
            "a:1",
            "0=a:1",
            "1=a",
            "1=:7400",
            "1=a:0",
            "1=a:70000",
            "x=a:1",
            "1=http://a:1",
        ] {
            assert!(
                matches!(parse_members(text), Err(ClusterError::Part { .. })),
                "{text}"
            );
        }
    }
}
