//! The file with the trace of the bootstrap: written by `run`, read by `analyze`.

use crate::observe::trace::{Life, MAX_TRACE, TRACE, Trace};
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::ports::Files;
use std::path::Path;

/// The kept trace; `None` when there is none.
pub fn load(files: &dyn Files) -> Outcome<Option<Trace>> {
    let Some(body) = files.read(Path::new(TRACE), MAX_TRACE)? else { return Ok(None) };
    serde_json::from_slice(&body).map(Some).map_err(|error| {
        Failure::new(Cause::Internal, format!("read {TRACE}"), error.to_string())
            .advise("remove the file; nothing but `analyze` needs it")
    })
}

/// Adds a life to the file, which only root may read: it names keys and paths. A file that cannot be read is replaced.
pub fn keep(files: &dyn Files, life: Life) -> Outcome<()> {
    let mut trace = load(files).ok().flatten().unwrap_or_default();
    trace.keep(life);
    let body = serde_json::to_vec(&trace)
        .map_err(|error| Failure::new(Cause::Internal, format!("write {TRACE}"), error.to_string()))?;
    files.write(Path::new(TRACE), &body, 0o600)
}
