//! Who is asking: the service account of the machine or, in a pod, of its workload identity. Both are given
//! by the metadata server, as Google's own libraries ask it.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::http::{Http, Refusal};

const PATH: &str = "computeMetadata/v1/instance/service-accounts/default/token";
/// A token is got anew so long before it is over.
const SPARE: Duration = Duration::from_secs(60);

/// A token, while it is good.
#[derive(Debug)]
pub(super) struct Token {
    host: String,
    known: Mutex<Option<(String, Instant)>>,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    expires_in: u64,
}

impl Token {
    pub(super) fn from_host(host: &str) -> Self {
        Self {
            host: host.to_owned(),
            known: Mutex::default(),
        }
    }

    /// One that is good for a while. Those who ask at the same time wait for one answer.
    pub(super) async fn get(&self, http: &Http) -> Result<String, Refusal> {
        let mut known = self.known.lock().await;
        if let Some((token, until)) = &*known
            && Instant::now() < *until
        {
            return Ok(token.clone());
        }
        let failed = |message: String| Refusal::Token {
            from: self.host.clone(),
            message,
        };
        let request = Request::get(format!("http://{}/{PATH}", self.host))
            .header("Metadata-Flavor", "Google");
        let answer = http.exchange(request, Bytes::new()).await;
        let answer = answer.map_err(|refusal| match refusal {
            Refusal::Status {
                status, message, ..
            } => failed(format!("{status}: {message}")),
            Refusal::Broken(message) | Refusal::Token { message, .. } => failed(message),
        })?;
        let answer: Answer =
            serde_json::from_value(answer).map_err(|error| failed(error.to_string()))?;
        let lasts = Duration::from_secs(answer.expires_in).saturating_sub(SPARE);
        *known = Some((answer.access_token.clone(), Instant::now() + lasts));
        Ok(answer.access_token)
    }

    /// The API does not take it any more.
    pub(super) async fn forget(&self) {
        *self.known.lock().await = None;
    }
}
