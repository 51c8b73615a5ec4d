//! The threads of a node's workers.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use fanwire_node::{Node, Worker};
use tokio::runtime;
use tokio::sync::watch;
use tokio::task::LocalSet;

/// The threads of a node's workers: one for each, with a single-threaded runtime of its own.
///
/// Dropping it lets them end without waiting for them.
#[derive(Debug)]
pub struct Workers {
    stopping: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts a thread for each of the node's workers.
    ///
    /// # Errors
    ///
    /// Those of the operating system, which refuses a thread or a poll descriptor.
    pub fn start(node: &Arc<Node>) -> io::Result<Self> {
        let (stopping, _) = watch::channel(false);
        let mut workers = Self { stopping, threads: Vec::new() };
        for index in 0..node.workers() {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            let node = Arc::clone(node);
            let stopped = workers.stopping.subscribe();
            let thread = thread::Builder::new().name(format!("worker-{index}"));
            workers.threads.push(thread.spawn(move || run(&runtime, &node, index, stopped))?);
        }
        Ok(workers)
    }

    /// Ends the threads, with whatever connections they still have, and waits until they are gone. Blocks.
    pub fn stop(mut self) {
        self.stopping.send_replace(true);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker's thread had panicked");
            }
        }
    }
}

fn run(runtime: &runtime::Runtime, node: &Arc<Node>, index: usize, mut stopped: watch::Receiver<bool>) {
    let connections = LocalSet::new();
    runtime.block_on(connections.run_until(async move {
        let _worker = Worker::start(node, index);
        // Fails when `Workers` is dropped, which is the same.
        let _ = stopped.wait_for(|stop| *stop).await;
    }));
    // Inside of the runtime, for connections that are dropped close their sockets.
    let _inside = runtime.enter();
    drop(connections);
}
