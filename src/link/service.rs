//! The calls of the protocol.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::bounds::Bounds;
use super::layers;
use super::metrics::Metrics;
use super::model::{Model, Models};
use super::places::{Gate, Ticket};
use super::pool::{Answer, Pool};
use super::proto::grpc_inference_service_server::GrpcInferenceService;
use super::proto::*;
use super::tensors::{Asked, Data};

/// What a server answers from.
pub(crate) struct Service {
    pub models: Models,
    pub pool: Pool,
    pub bounds: Bounds,
    pub metrics: Metrics,
    pub gate: Arc<Gate>,
    /// True until the server is asked to end.
    pub ready: watch::Receiver<bool>,
    /// True once it does: open calls are told.
    pub ending: watch::Receiver<bool>,
    /// Confidence at which a layered stream is answered, if its client names none.
    pub threshold: f64,
}

impl Service {
    /// Reads a request and counts what it brought.
    pub fn read(&self, request: &mut ModelInferRequest) -> Result<Asked, Status> {
        let asked = Asked::read(request, &self.models, self.bounds.batch)?;
        self.metrics.payload_bytes.with_label_values(&[&asked.model.name, asked.input]).observe(asked.bytes as f64);
        Ok(asked)
    }

    /// Decodes and runs, once a worker is free.
    pub async fn run(&self, model: &Arc<Model>, data: Data, deadline: Instant) -> Result<Answer, Status> {
        let receiver = self.pool.submit(model.clone(), data, deadline.into_std())?;
        receiver.await.map_err(|_| Status::unavailable("the server is ending: try another replica"))?
    }

    async fn infer(&self, request: &mut ModelInferRequest, ticket: &Ticket) -> Result<ModelInferResponse, Status> {
        let mut asked = self.read(request)?;
        let data = asked.take();
        let Answer { logits, times } = self.run(&asked.model, data, ticket.deadline).await?;
        tracing::debug!(
            id = request.id,
            model = asked.model.name,
            items = logits.len(),
            bytes = asked.bytes,
            queue_ms = 1e3 * times.queue,
            decode_ms = 1e3 * times.decode,
            tail_ms = 1e3 * times.tail,
            "answered"
        );
        Ok(asked.answer(std::mem::take(&mut request.id), &logits, times))
    }
}

/// The place of a request; every request has one that came through the door and is no question.
pub(crate) fn ticket<T>(request: &Request<T>) -> Result<Arc<Ticket>, Status> {
    request.extensions().get::<Arc<Ticket>>().cloned().ok_or_else(|| Status::internal("a request beside the door"))
}

#[tonic::async_trait]
impl GrpcInferenceService for Arc<Service> {
    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Result<Response<ServerReadyResponse>, Status> {
        Ok(Response::new(ServerReadyResponse { ready: *self.ready.borrow() }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Result<Response<ModelReadyResponse>, Status> {
        let request = request.into_inner();
        self.models.get(&request.name, &request.version)?;
        Ok(Response::new(ModelReadyResponse { ready: *self.ready.borrow() }))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(ServerMetadataResponse {
            name: "narrows".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            extensions: vec!["model_stream_infer".into()],
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.models.get(&request.name, &request.version)?.metadata()))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Result<Response<ModelInferResponse>, Status> {
        let ticket = ticket(&request)?;
        ticket.waits(None);
        let mut request = request.into_inner();
        let refused = |status: &Status| tracing::debug!(code = ?status.code(), error = status.message(), "refused");
        self.infer(&mut request, &ticket).await.inspect_err(refused).map(Response::new)
    }

    type ModelStreamInferStream = ReceiverStream<Result<ModelStreamInferResponse, Status>>;

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        let ticket = ticket(&request)?;
        Ok(Response::new(layers::serve(self.clone(), request.into_inner(), ticket)))
    }
}
