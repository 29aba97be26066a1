//! `ecr-credential-provider`: the kubelet's plugin. It reads no configuration of kubestrap: what it must know is in
//! its arguments and its environment, and a cached login is answered before there is TLS or a runtime.

use super::ecr_login::{self, Source};
use super::{print, report};
use crate::adapters::{durable, token_cache};
use clap::{Args, Parser};
use kubestrap_core::ecr::host::Api;
use kubestrap_core::ecr::plugin::{self, MAX_REQUEST, Mirrors};
use kubestrap_core::model::cause::{Cause, ExitCode, Failure, Outcome};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The kubelet kills us after a minute, and then shows nothing of why.
const DEADLINE: Duration = Duration::from_secs(20);
/// A login that outlived a failure is looked at again soon.
const SPARED_FOR: Duration = Duration::from_secs(60);
/// The role for service accounts without an annotation; the upstream plugin's.
const DEFAULT_ROLE: &str = "AWS_ECR_ROLE_ARN";

/// Answer the kubelet's request for the login of an image's registry (standard input to standard output).
///
/// The kubelet starts this program as its CredentialProviderConfig says, which `run` writes; also under the name
/// `ecr-credential-provider`. Hosts of ECR get a login; others only when they are listed. By hand use `kubestrap ecr token`.
#[derive(Args)]
pub struct EcrProvider {
    /// A host that takes the login of a registry of ECR: a mirror or pull-through cache. May be repeated.
    #[arg(long = "mirror", value_name = "HOST=ECR-HOST")]
    mirrors: Vec<String>,
    /// Where logins are kept.
    #[arg(long, value_name = "DIR", default_value = token_cache::FOLDER)]
    cache_dir: PathBuf,
}

/// The verb alone: the whole command line takes longer to put together than a cached answer.
#[derive(Parser)]
#[command(name = plugin::VERB, version)]
struct Alone {
    #[command(flatten)]
    verb: EcrProvider,
}

/// Carries the verb out when the program was started as it; `None` for everything else, help included.
pub fn early() -> Option<ExitCode> {
    let mut args = std::env::args_os();
    let program = args.next()?;
    let is_named = Path::new(&program).file_name().is_some_and(|name| name == plugin::VERB);
    if !is_named && args.next()? != plugin::VERB {
        return None;
    }
    let rest: Vec<OsString> = args.collect();
    match Alone::try_parse_from(std::iter::once(OsString::from(plugin::VERB)).chain(rest)) {
        Ok(alone) => Some(alone.verb.run().unwrap_or_else(|failure| {
            report(&failure);
            failure.cause.row().exit
        })),
        // The whole command line has the better help.
        Err(error) if !error.use_stderr() && !is_named => None,
        Err(error) => {
            let _ = error.print();
            Some(if error.use_stderr() { ExitCode::Usage } else { ExitCode::Done })
        }
    }
}

impl EcrProvider {
    /// One request, one response, or none and the reason on standard error.
    pub fn run(self) -> Outcome<ExitCode> {
        watch_the_time();
        let mut mirrors = Mirrors::default();
        for mirror in &self.mirrors {
            let bad = |why: String| Failure::new(Cause::Usage, format!("use --mirror {mirror:?}"), why);
            let (host, registry) = mirror.split_once('=').ok_or_else(|| bad("it is not HOST=ECR-HOST".to_owned()))?;
            mirrors.add(host, registry).map_err(bad)?;
        }
        let request = plugin::decode(&input()?)?;
        let default_role = std::env::var(DEFAULT_ROLE).ok();
        let wanted = plugin::wanted(&request, &mirrors, default_role.as_deref())?;
        let found = match ecr_login::find(Some(&self.cache_dir), &wanted.request) {
            Ok(found) => found,
            // Everybody may pull from ECR Public; a login only raises the limits.
            Err(failure) if wanted.request.api == Api::Public && failure.cause == Cause::AccessDenied => {
                eprintln!("kubestrap: pulling anonymously: failed to {failure}");
                print(&format!("{}\n", plugin::anonymous().expose()))?;
                return Ok(ExitCode::Done);
            }
            Err(failure) => return Err(failure),
        };
        let at_most = match &found.source {
            Source::Spared(failure) => {
                eprintln!("kubestrap: answering with the login from before, for it failed to {failure}");
                Some(SPARED_FOR)
            }
            Source::Cache | Source::Ecr => None,
        };
        let response = plugin::response(&wanted.host, &found.login, jiff::Timestamp::now(), at_most);
        print(&format!("{}\n", response.expose()))?;
        Ok(ExitCode::Done)
    }
}

fn input() -> Outcome<Vec<u8>> {
    let read = durable::read_bounded(&mut std::io::stdin().lock(), MAX_REQUEST as u64);
    let read = read.map_err(|error| durable::failure("read the kubelet's request on standard input", &error))?;
    // What is too long is refused by whoever decodes it, with the limit.
    Ok(read.unwrap_or_else(|| vec![0; MAX_REQUEST + 1]))
}

/// Ends the process when its time is over, wherever it hangs: a standard input without an end, a file system, a lock.
fn watch_the_time() {
    std::thread::spawn(|| {
        std::thread::sleep(DEADLINE);
        let why = format!("it did not end within {} s", DEADLINE.as_secs());
        let failure = Failure::new(Cause::Deadline, "answer the kubelet's request for a login", why);
        report(&failure);
        std::process::exit(failure.cause.row().exit as i32);
    });
}
