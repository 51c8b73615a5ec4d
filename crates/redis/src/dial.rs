//! Making connections.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, PushInfo, RedisConnectionInfo,
    RedisResult, TlsCertificates,
};

use crate::url::Address;

/// Knows how to introduce the node to the servers behind one URL.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(crate) login: RedisConnectionInfo,
    /// With TLS, if there are any.
    pub(crate) certificates: Option<TlsCertificates>,
    pub(crate) timeout: Duration,
}

/// After how much silence a peer is asked for a sign of life.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// The requests that may wait to be written to the socket.
const PIPELINE: usize = 4096;

impl Dialer {
    /// The same for the sentinels of a server, which have accounts of their own.
    pub(crate) fn for_sentinels(&self, password: Option<&str>) -> Self {
        let login = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
        Self { login: password.map_or(login.clone(), |password| login.set_password(password)), ..self.clone() }
    }

    /// Connects, with the name resolved anew. What is not an answer goes to `pushes`, a failure of which is not reported.
    pub(crate) async fn connect(
        &self,
        address: &Address,
        pushes: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> RedisResult<MultiplexedConnection> {
        let (host, port) = (address.host.to_string(), address.port);
        let plain = (host.clone(), port).into_connection_info()?;
        let tcp = TcpSettings::default()
            .set_nodelay(true)
            .set_keepalive(TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE));
        // After how long a peer that acknowledges nothing is gone.
        #[cfg(target_os = "linux")]
        let tcp = tcp.set_user_timeout(Duration::from_secs(10));
        let info = plain.set_redis_settings(self.login.clone()).set_tcp_settings(tcp);
        let client = match &self.certificates {
            None => Client::open(info)?,
            Some(certificates) => {
                let encrypted = ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None };
                Client::build_with_tls(info.set_addr(encrypted), certificates.clone())?
            }
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(PIPELINE)
            .set_push_sender(move |push: PushInfo| {
                pushes(push);
                Ok::<_, std::convert::Infallible>(())
            });
        client.get_multiplexed_async_connection_with_config(&config).await
    }
}
