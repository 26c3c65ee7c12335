//! The peers, each the way a user of it would carry activations.

pub(crate) mod etcd;
pub(crate) mod nats;
pub(crate) mod rabbitmq;
pub(crate) mod redis;
