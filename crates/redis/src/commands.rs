//! The connection for commands: shared, pipelined, made anew whenever it is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fanwire_node::broker::Error;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, Pipeline, PushInfo, PushKind, RedisError, RedisResult, Value};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::functions::{self, Function, Scripts};

/// Sends commands, each answered or given up within the configured time.
pub(crate) struct Commands {
    client: Client,
    timeout: Duration,
    scripts: Scripts,
    /// Functions are not permitted on this server: scripts take their place.
    without_functions: AtomicBool,
    /// Held while connecting, so that one attempt serves all who wait.
    link: Mutex<Option<Link>>,
}

#[derive(Clone)]
struct Link {
    connection: MultiplexedConnection,
    /// Set as soon as the connection is known to be gone.
    broken: Arc<AtomicBool>,
}

/// The requests that may wait to be written to the socket.
const PIPELINE: usize = 4096;

impl Commands {
    pub(crate) fn new(client: Client, timeout: Duration) -> Self {
        Self {
            client,
            timeout,
            scripts: Scripts::new(),
            without_functions: AtomicBool::new(false),
            link: Mutex::default(),
        }
    }

    /// Calls a function of the library.
    pub(crate) async fn call(&self, function: Function, keys: &[String], args: &[Bytes]) -> Result<Value, Error> {
        self.run(async |connection| {
            if !self.without_functions.load(Ordering::Relaxed) {
                let mut command = redis::cmd("FCALL");
                command.arg(function.name()).arg(keys.len()).arg(keys);
                for arg in args {
                    command.arg(&**arg);
                }
                match command.query_async(connection).await {
                    Err(error) if is_unknown_function(&error) => {
                        self.load_functions(connection).await?;
                        if !self.without_functions.load(Ordering::Relaxed) {
                            return command.query_async(connection).await;
                        }
                    }
                    answer => return answer,
                }
            }
            let mut call = self.scripts.get(function).prepare_invoke();
            for key in keys {
                call.key(key);
            }
            for arg in args {
                call.arg(&**arg);
            }
            call.invoke_async(connection).await
        })
        .await
    }

    /// Runs one command.
    pub(crate) async fn command(&self, command: &Cmd) -> Result<Value, Error> {
        self.run(async |connection| command.query_async(connection).await).await
    }

    /// Runs commands in one round trip.
    pub(crate) async fn pipeline(&self, pipeline: &Pipeline) -> Result<Vec<Value>, Error> {
        self.run(async |connection| pipeline.query_async(connection).await).await
    }

    async fn run<T>(&self, work: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T>) -> Result<T, Error> {
        let deadline = Instant::now() + self.timeout;
        let connected = timeout_at(deadline, self.link()).await;
        let connected = connected.unwrap_or_else(|_| Err(Error::Unavailable("no connection to Redis in time".into())));
        let Link { mut connection, broken } = connected?;
        match timeout_at(deadline, work(&mut connection)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if error.code().is_some() => Err(Error::Unavailable(error.to_string().into())),
            // Sent and not answered, as far as anyone knows. A connection that owes an answer is not trusted again.
            Ok(Err(_)) | Err(_) => {
                broken.store(true, Ordering::Relaxed);
                Err(Error::OutcomeUnknown)
            }
        }
    }

    async fn link(&self) -> Result<Link, Error> {
        let mut link = self.link.lock().await;
        if let Some(link) = link.as_ref().filter(|link| !link.broken.load(Ordering::Relaxed)) {
            return Ok(link.clone());
        }
        *link = None;
        let made = self.connect().await.map_err(|error| Error::Unavailable(error.to_string().into()))?;
        Ok(link.insert(made).clone())
    }

    async fn connect(&self) -> RedisResult<Link> {
        let broken = Arc::new(AtomicBool::new(false));
        let mark = Arc::clone(&broken);
        let watch = move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                mark.store(true, Ordering::Relaxed);
            }
            Ok::<_, std::convert::Infallible>(())
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(PIPELINE)
            .set_push_sender(watch);
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        self.load_functions(&mut connection).await?;
        Ok(Link { connection, broken })
    }

    async fn load_functions(&self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        let mut load = redis::cmd("FUNCTION");
        let loaded: RedisResult<Value> = load.arg("LOAD").arg(functions::library()).query_async(connection).await;
        let refused = match loaded {
            Ok(_) => false,
            Err(error) if error.to_string().contains("already exists") => false,
            Err(error) if is_not_permitted(&error) => true,
            Err(error) => return Err(error),
        };
        self.without_functions.store(refused, Ordering::Relaxed);
        Ok(())
    }
}

fn is_unknown_function(error: &RedisError) -> bool {
    error.to_string().contains("Function not found")
}

fn is_not_permitted(error: &RedisError) -> bool {
    error.code() == Some("NOPERM") || error.to_string().contains("unknown command")
}

/// The bytes of a string Redis answered with.
pub(crate) fn bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(bytes) => Some(bytes.into()),
        Value::SimpleString(text) => Some(text.into()),
        Value::VerbatimString { text, .. } => Some(text.into()),
        Value::Int(number) => Some(number.to_string().into()),
        _ => None,
    }
}

/// The same as text.
pub(crate) fn text(value: Value) -> Option<String> {
    bytes(value).and_then(|bytes| String::from_utf8(bytes.into()).ok())
}

/// The items of a list Redis answered with.
pub(crate) fn items(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) | Value::Set(items) => items,
        Value::Map(pairs) => pairs.into_iter().flat_map(|(key, value)| [key, value]).collect(),
        _ => Vec::new(),
    }
}
