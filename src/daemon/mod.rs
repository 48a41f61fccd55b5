//! The wiring: the only room that knows all the others.

/// Placeholder for the daemon.
///
/// # Errors
/// Never.
pub async fn run(
    _settings: crate::config::Settings,
    shutdown: tokio_util::sync::CancellationToken,
) -> anyhow::Result<()> {
    shutdown.cancelled().await;
    Ok(())
}
