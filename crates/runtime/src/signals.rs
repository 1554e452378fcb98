//! The signals that ask a process to end.

use std::process;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Exit code of a process that was told to end twice: 128 and SIGINT, as shells report it.
const ABORTED: i32 = 130;

/// Waits for SIGTERM or SIGINT. From then on a second one ends the process at once, without
/// finishing what is under way.
///
/// Call it from within a tokio runtime. Where handlers cannot be installed it says so and never
/// returns: the signals then keep their default effect.
pub async fn ended_by_signal() {
    let handlers = signal(SignalKind::terminate())
        .and_then(|term| signal(SignalKind::interrupt()).map(|int| (term, int)));
    let (mut term, mut int) = match handlers {
        Ok(handlers) => handlers,
        Err(error) => {
            tracing::warn!(%error, "no graceful end on SIGTERM or SIGINT");
            return std::future::pending().await;
        }
    };
    either(&mut term, &mut int).await;
    tokio::spawn(async move {
        either(&mut term, &mut int).await;
        tracing::warn!("told to end a second time: ending at once");
        process::exit(ABORTED);
    });
}

async fn either(term: &mut Signal, int: &mut Signal) {
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
