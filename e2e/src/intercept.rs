//! A client whose requests go through a function of a test, which may do more than send them.

use std::pin::Pin;
use std::task::{Context, Poll};

use kube::client::Body;
use tower_service::Service;

type Answer = Result<http::Response<Body>, kube::Error>;

/// A client that has `send` answer each request.
pub(crate) fn client<F, A>(send: F) -> kube::Client
where
    F: Fn(http::Request<Body>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    kube::Client::new(Intercept(send), "default")
}

#[derive(Clone)]
struct Intercept<F>(F);

impl<F, A> Service<http::Request<Body>> for Intercept<F>
where
    F: Fn(http::Request<Body>) -> A,
    A: Future<Output = Answer> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = kube::Error;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin((self.0)(request))
    }
}
