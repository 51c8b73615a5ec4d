//! A connection for commands to one server: shared, pipelined.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, Pipeline, PushInfo, PushKind, RedisError, RedisResult, ServerErrorKind, Value};

use crate::functions::{self, Call};
use crate::topology::{Server, Topology};

/// Clones share the connection.
#[derive(Clone)]
pub(crate) struct Link {
    connection: MultiplexedConnection,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// The connection is gone, or owes an answer.
    broken: AtomicBool,
    /// Functions are not permitted on this server: scripts take their place.
    without_functions: AtomicBool,
}

/// Something to be done.
#[derive(Clone, Copy)]
pub(crate) enum Request<'a> {
    Command(&'a Cmd),
    Call(&'a Call<'a>),
}

/// Whether the server is told that it was named by another one which is handing over the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asking {
    No,
    Yes,
}

impl Link {
    /// Connects and makes sure that the functions are there.
    pub(crate) async fn connect(topology: &Topology, server: &Server) -> RedisResult<Self> {
        let state = Arc::new(State::default());
        let mark = Arc::clone(&state);
        let watch = move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                mark.broken.store(true, Ordering::Relaxed);
            }
        };
        let connection = topology.connect(server, watch).await?;
        let mut link = Self { connection, state };
        link.load_functions().await?;
        Ok(link)
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.state.broken.load(Ordering::Relaxed)
    }

    /// The connection is not trusted again.
    pub(crate) fn give_up(&self) {
        self.state.broken.store(true, Ordering::Relaxed);
    }

    /// Does one thing.
    pub(crate) async fn run(&mut self, request: Request<'_>, asking: Asking) -> RedisResult<Value> {
        let call = match request {
            Request::Command(command) => return self.send(command, asking).await,
            Request::Call(call) => call,
        };
        if !self.state.without_functions.load(Ordering::Relaxed) {
            let command = call.function();
            match self.send(&command, asking).await {
                Err(error) if is_unknown_function(&error) => {
                    self.load_functions().await?;
                    if !self.state.without_functions.load(Ordering::Relaxed) {
                        return self.send(&command, asking).await;
                    }
                }
                answer => return answer,
            }
        }
        match self.send(&call.known_script(), asking).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.send(&call.script(), asking).await
            }
            answer => answer,
        }
    }

    /// Runs commands in one round trip; each has an answer of its own.
    pub(crate) async fn pipeline(&mut self, commands: &[&Cmd]) -> RedisResult<Vec<RedisResult<Value>>> {
        let mut pipeline = Pipeline::with_capacity(commands.len());
        pipeline.ignore_errors();
        for command in commands {
            pipeline.add_command((*command).clone());
        }
        pipeline.query_async(&mut self.connection).await
    }

    async fn send(&mut self, command: &Cmd, asking: Asking) -> RedisResult<Value> {
        if asking == Asking::No {
            return command.query_async(&mut self.connection).await;
        }
        // Nothing of another request may come between the two.
        let answers = self.pipeline(&[&redis::cmd("ASKING"), command]).await?;
        answers.into_iter().nth(1).unwrap_or_else(|| Err((ErrorKind::UnexpectedReturnType, "no answer").into()))
    }

    async fn load_functions(&mut self) -> RedisResult<()> {
        let mut load = redis::cmd("FUNCTION");
        let loaded: RedisResult<Value> =
            load.arg("LOAD").arg(functions::library()).query_async(&mut self.connection).await;
        let refused = match loaded {
            Ok(_) => false,
            Err(error) if error.to_string().contains("already exists") => false,
            Err(error) if is_not_permitted(&error) => true,
            Err(error) => return Err(error),
        };
        self.state.without_functions.store(refused, Ordering::Relaxed);
        Ok(())
    }
}

fn is_unknown_function(error: &RedisError) -> bool {
    error.to_string().contains("Function not found")
}

fn is_not_permitted(error: &RedisError) -> bool {
    error.code() == Some("NOPERM") || error.to_string().contains("unknown command")
}
