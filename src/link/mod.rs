//! A link between device and server: tails behind gRPC, and the client that reaches them.
//!
//! The protocol is version 2 of the Open Inference Protocol, package `inference`, which inference servers, their clients
//! and load balancers speak. A model takes streams of narrows in a BYTES tensor `stream`, or features as they are in an
//! FP32 tensor `feature`; a model of a whole network takes compressed images in `image`, or its input in `x`.
//!
//! - [`Server`] runs [`Model`]s on a bounded pool of workers, within [`Bounds`] on memory, time and connections.
//! - [`Client`] sends requests to one of several replicas and retries elsewhere what one of them has lost.
//! - [`Shape`] is a narrow link in a process: bandwidth, delay, loss.

mod bounds;
mod call;
mod client;
mod connect;
mod connections;
mod door;
mod health;
mod http;
mod layers;
mod metrics;
mod model;
mod named;
mod places;
mod pool;
mod retry;
mod server;
mod service;
mod shape;
mod tensors;
mod transport;
pub(crate) mod wire;
mod worker;

pub use bounds::Bounds;
pub use client::{Client, ClientOptions, Layer, Reply, Tls};
pub use model::{Accepts, Model, Tail};
pub use retry::Retry;
pub use server::{Identity, Server};
pub use shape::{Shape, Shaped, Trace};
pub use tensors::{Data, Output, Times};

/// The protocol's messages, client and server, and those of health checks, as generated.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
pub mod proto {
    tonic::include_proto!("inference");

    /// gRPC's health checks.
    pub mod health {
        tonic::include_proto!("grpc.health.v1");
    }
}
