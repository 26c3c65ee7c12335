//! gRPC messages and services of Whiskraft, generated from `proto/`, and their conversion to and from `types`.
//!
//! Parsing happens once, at the edge, by `TryFrom`; past that point everything speaks `types`.

mod convert;
pub mod gather;
mod gathered;
mod membership;
mod ready;
pub mod transport;

pub use convert::{InvalidMessage, activation_id, activation_id_bytes, identity, required};
pub use ready::{ReadyWatch, ReadyWatchServer};

/// Generated messages, clients and servers of protocol version 1.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated; the comments are in proto/"
)]
pub mod v1 {
    tonic::include_proto!("whiskraft.v1");
}

/// The unary pull service of OpenWhisk's scheduler, generated.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated; the comments are in proto/"
)]
pub mod activation {
    tonic::include_proto!("activation");
}

/// Largest message that any of us takes: far above every limit of a single payload, record or document, so that what is
/// too large gets a typed answer, and room for a batch of them.
pub const MESSAGE_LEN_MAX: usize = 64 << 20;

/// Encoding of messages that are stored, such as [`v1::Action`] as the body of its document.
pub use prost::{DecodeError, Message};
