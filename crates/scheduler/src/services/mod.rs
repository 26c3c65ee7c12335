//! The gRPC services of the client listener.

mod action;
mod activation;
mod blobs;
mod controller;
mod documents;
mod handoff;
mod invoker;
mod neighbour;
mod operator;
mod watch;

pub(crate) use activation::ActivationService;
pub(crate) use controller::ControllerService;
pub(crate) use documents::DocumentsService;
pub(crate) use handoff::HandOffService;
pub(crate) use invoker::InvokerService;
pub(crate) use neighbour::NeighbourService;
pub(crate) use operator::OperatorService;
pub(crate) use watch::WatchService;
