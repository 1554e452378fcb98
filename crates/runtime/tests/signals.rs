//! Signals, in a process of their own.

use std::pin::pin;
use std::process::{self, Command};
use std::time::Duration;

use tokio::time::timeout;

#[tokio::test]
async fn sigterm_asks_for_the_end() {
    let mut ended = pin!(bitts_runtime::ended_by_signal());
    let early = timeout(Duration::from_millis(50), &mut ended).await;
    assert!(
        early.is_err(),
        "nobody asked yet, and the handler is in place"
    );
    let pid = process::id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .is_ok_and(|s| s.success())
    );
    assert!(timeout(Duration::from_secs(10), ended).await.is_ok());
}
