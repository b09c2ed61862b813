//! gRPC's health checks: the server, the service of the protocol and each model serve while the server is ready.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::proto::health::health_check_response::ServingStatus;
use super::proto::health::health_server::Health;
use super::proto::health::{HealthCheckRequest, HealthCheckResponse};
use super::service::{Service, ticket};

/// The service of the protocol by its whole name.
const SERVICE: &str = "inference.GRPCInferenceService";

impl Service {
    /// Whether there is a service of this name: the server as a whole has the empty one.
    fn serves(&self, name: &str) -> Result<(), Status> {
        match name {
            "" | SERVICE => Ok(()),
            model => self.models.get(model, "").map(|_| ()),
        }
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

fn serving(ready: bool) -> ServingStatus {
    if ready { ServingStatus::Serving } else { ServingStatus::NotServing }
}

#[tonic::async_trait]
impl Health for Arc<Service> {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        self.serves(&request.get_ref().service)?;
        Ok(Response::new(response(serving(*self.ready.borrow()))))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let ticket = ticket(&request)?;
        let known = self.serves(&request.get_ref().service).is_ok();
        let (sender, receiver) = mpsc::channel(1);
        let (mut ready, mut ending) = (self.ready.clone(), self.ending.clone());
        let stall = self.bounds.stall;
        let watching = async move {
            loop {
                let status = match known {
                    true => serving(*ready.borrow_and_update()),
                    // The protocol wants this, not an error: the service may come later.
                    false => ServingStatus::ServiceUnknown,
                };
                match tokio::time::timeout(stall, sender.send(Ok(response(status)))).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return,
                    Err(_) => return ticket.cut(),
                }
                let last = tokio::select! {
                    () = sender.closed() => return,
                    status = ticket.evicted() => status,
                    () = tokio::time::sleep_until(ticket.deadline) => {
                        Status::deadline_exceeded("the deadline of the call has passed")
                    }
                    _ = ending.wait_for(|ending| *ending) => {
                        Status::unavailable("the server is ending: try another replica")
                    }
                    changed = ready.changed() => match changed {
                        Ok(()) => continue,
                        Err(_) => return,
                    },
                };
                let _ = tokio::time::timeout(stall, sender.send(Err(last))).await;
                return;
            }
        };
        tokio::spawn(watching);
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
