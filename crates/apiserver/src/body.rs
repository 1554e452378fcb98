//! The body of an answer: bytes at once, or a watch that goes on.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use http_body::{Frame, SizeHint};

/// The connection broke on purpose, as a fault rule asked.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the connection was cut on request of a fault rule")]
pub struct Cut;

/// The body of an answer.
pub struct Body(Inner);

enum Inner {
    Whole(Option<Bytes>),
    Stream(BoxStream<'static, Result<Bytes, Cut>>),
}

impl Body {
    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self(Inner::Whole((!bytes.is_empty()).then_some(bytes)))
    }

    pub(crate) fn stream(
        stream: impl futures::Stream<Item = Result<Bytes, Cut>> + Send + 'static,
    ) -> Self {
        Self(Inner::Stream(stream.boxed()))
    }

    /// A body that breaks before its first byte.
    pub(crate) fn cut() -> Self {
        Self::stream(futures::stream::iter([Err(Cut)]))
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Inner::Whole(_) => "Body::Whole",
            Inner::Stream(_) => "Body::Stream",
        })
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match &mut self.0 {
            Inner::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Inner::Stream(stream) => stream
                .poll_next_unpin(context)
                .map(|item| item.map(|chunk| chunk.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Inner::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64)
            }
            Inner::Stream(_) => SizeHint::default(),
        }
    }
}
