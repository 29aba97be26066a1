//! State is bound to the machine that made it.

use crate::journal::STATE_FOLDER;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::ports::Files;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Whose state this is.
const OWNER: &str = "/var/lib/kubestrap/identity.json";
/// An ARN and a few braces.
const MAX_OWNER: u64 = 64 * 1024;

#[derive(Debug, Serialize, Deserialize)]
struct Owner {
    schema: u32,
    identity: String,
}

/// Binds the state folder to this machine ([`crate::model::identity::Identity::key`]) the first time, and refuses another
/// machine's afterwards (`ClonedState`): with a copied disk would come the journal, which is the proof for resets.
pub fn bind_state(files: &dyn Files, identity: &str) -> Outcome<()> {
    let attempted = || format!("use the state in {STATE_FOLDER}");
    let Some(body) = files.read(Path::new(OWNER), MAX_OWNER)? else {
        let owner = Owner { schema: 1, identity: identity.to_owned() };
        let body = serde_json::to_vec(&owner)
            .map_err(|error| Failure::new(Cause::Internal, attempted(), error.to_string()))?;
        return files.write(Path::new(OWNER), &body, 0o600);
    };
    let why = match serde_json::from_slice::<Owner>(&body) {
        Ok(owner) if owner.identity == identity => return Ok(()),
        Ok(owner) => format!("it belongs to {}, and this machine is {identity}", owner.identity),
        Err(error) => format!("{OWNER} is damaged: {error}"),
    };
    Err(Failure::new(Cause::ClonedState, attempted(), why))
}

#[cfg(test)]
mod tests {
    use super::super::tests::Texts;
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn only_the_machine_that_made_the_state_may_use_it() {
        let of = |text: &'static str| Texts(BTreeMap::from([(OWNER, text)]));
        assert_eq!(bind_state(&of(r#"{"schema":1,"identity":"machine-a"}"#), "machine-a"), Ok(()));
        for text in [r#"{"schema":1,"identity":"machine-b"}"#, "", "{"] {
            let failure = bind_state(&of(text), "machine-a").expect_err(text);
            assert_eq!(failure.cause, Cause::ClonedState, "{failure}");
        }
    }
}
