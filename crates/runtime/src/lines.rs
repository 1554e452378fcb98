//! A watch's answer, line by line.

use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::connect::whole;

/// One line of a watch. The parts may come in any order, and the object is not yet read.
#[derive(Deserialize)]
pub(crate) struct Line<'a> {
    #[serde(rename = "type")]
    pub(crate) kind: &'a str,
    #[serde(borrow)]
    pub(crate) object: &'a RawValue,
}

/// Cuts a body into lines as they come in.
pub(crate) struct Lines {
    body: Body,
    buffer: BytesMut,
    /// So many bytes of the buffer hold no end of a line.
    searched: usize,
}

impl Lines {
    pub(crate) fn new(body: Body) -> Self {
        Self {
            body,
            buffer: BytesMut::new(),
            searched: 0,
        }
    }

    /// The next line that is not empty; `None` at the end. What comes after the last end of a line
    /// was cut off, and is left out.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            if let Some(line) = self.cut() {
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Ok(Some(line));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(whole(&error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }

    fn cut(&mut self) -> Option<Bytes> {
        let rest = &self.buffer[self.searched..];
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.buffer.len();
            return None;
        };
        let line = self.buffer.split_to(self.searched + end).freeze();
        self.buffer.advance(1);
        self.searched = 0;
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_cut_and_a_torn_last_one_is_left_out() {
        let mut lines = Lines::new(Body::from(b"{\"a\":1}\n\r\n{}\n{\"tor".to_vec()));
        assert_eq!(
            lines.next().await.unwrap().as_deref(),
            Some(&b"{\"a\":1}"[..])
        );
        assert_eq!(lines.next().await.unwrap().as_deref(), Some(&b"{}"[..]));
        assert_eq!(lines.next().await.unwrap(), None);
    }

    #[test]
    fn the_type_may_come_last() {
        let line: Line<'_> = serde_json::from_str(r#"{"object":{"x":1},"type":"ADDED"}"#).unwrap();
        assert_eq!((line.kind, line.object.get()), ("ADDED", r#"{"x":1}"#));
    }
}
