//! `reload`.

use fanwire_wire::Refusal;
use tokio::sync::{mpsc, oneshot};

use crate::caller::Caller;
use crate::proto::{ReloadRequest, ReloadResponse};
use crate::types::Fault;

/// The wish that a node reads its configuration again, and where its answer goes: what changes, or all that is wrong.
#[derive(Debug)]
pub struct Reload {
    /// Whether nothing is to change yet.
    pub dry_run: bool,
    /// Who waits for the answer.
    pub answer: oneshot::Sender<Result<Changes, Vec<String>>>,
}

/// What another configuration changes; each by its place there, like `client.origins`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What changes while the node runs.
    pub changed: Vec<String>,
    /// What stays as it is until the node is started again.
    pub needs_restart: Vec<String>,
}

/// Asks whoever reads the configuration.
pub(crate) async fn reload(
    reader: &Option<mpsc::Sender<Reload>>,
    _: &Caller,
    request: ReloadRequest,
) -> Result<ReloadResponse, Fault> {
    let reader = reader.as_ref().ok_or_else(|| Fault::unsupported("this node has no configuration to read again"))?;
    let (answer, answered) = oneshot::channel();
    let wish = Reload { dry_run: request.dry_run, answer };
    reader.try_send(wish).map_err(|_| Refusal::TooManyRequests)?;
    match answered.await {
        Ok(Ok(Changes { changed, needs_restart })) => Ok(ReloadResponse { changed, needs_restart }),
        Ok(Err(mistakes)) => Err(Fault::bad(format!("nothing was changed: {}", mistakes.join("; ")))),
        // The node goes down.
        Err(_) => Err(Refusal::Unavailable.into()),
    }
}
