//! The API as a tower service.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use http::{Request, Response};
use http_body_util::BodyExt;
use tower_service::Service;

use crate::body::Body;
use crate::rest::Core;

/// One client's way to the API. Clones lead to the same API.
#[derive(Debug, Clone)]
pub struct ApiService {
    core: Arc<Core>,
}

impl ApiService {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }
}

impl<B> Service<Request<B>> for ApiService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let core = Arc::clone(&self.core);
        async move {
            let (parts, body) = request.into_parts();
            // A body that breaks off is a client that went away: there is nobody to answer.
            let Ok(body) = body.collect().await else {
                return Ok(Response::new(Body::cut()));
            };
            Ok(core.handle(parts, body.to_bytes()).await)
        }
        .boxed()
    }
}
