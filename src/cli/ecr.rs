//! `ecr`: what a person asks about logins of ECR.

use super::ecr_login::{self, Source};
use super::{Form, Output, print, print_json, trust};
use crate::adapters::token_cache;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use kubestrap_core::ecr::host::Registry;
use kubestrap_core::model::cause::{Cause, ExitCode, Failure, Outcome};
use kubestrap_core::ports::TokenRequest;
use serde_json::json;
use std::path::PathBuf;

/// Look at this machine's access to ECR.
#[derive(Args)]
pub struct Ecr {
    #[command(subcommand)]
    command: EcrCommand,
}

#[derive(Subcommand)]
enum EcrCommand {
    Token(Token),
}

/// Get the login of a registry, as the kubelet's plugin would, and say how long it lives.
///
/// Credentials and endpoints are those of the environment, the profile, or the instance. The password is shown only
/// when it is asked for.
#[derive(Args)]
#[command(after_help = "Examples:
  kubestrap ecr token --registry 123456789012.dkr.ecr.eu-west-1.amazonaws.com
  kubestrap ecr token --registry HOST --show | docker login --username AWS --password-stdin HOST")]
struct Token {
    /// The registry's host.
    #[arg(long, value_name = "HOST")]
    registry: String,
    /// Print the password, and nothing else.
    #[arg(long, conflicts_with = "output")]
    show: bool,
    /// Where logins are kept; by default root's cache, and none for others.
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

impl Ecr {
    /// Carries the verb out.
    pub fn run(self) -> Outcome<ExitCode> {
        match self.command {
            EcrCommand::Token(token) => token.run(),
        }
    }
}

impl Token {
    fn run(self) -> Outcome<ExitCode> {
        let registry = Registry::parse(&self.registry).ok_or_else(|| {
            let why = "it is no registry of ECR: those are <account>.dkr.ecr.<region>.amazonaws.com, its FIPS and \
                       dual-stack forms, those of the other partitions, and public.ecr.aws";
            Failure::new(Cause::Usage, format!("get a login for {:?}", self.registry), why)
        })?;
        let shared = (trust::own_uid() == 0).then(|| PathBuf::from(token_cache::FOLDER));
        let folder = self.cache_dir.or(shared);
        let request = TokenRequest { api: registry.api().clone(), role: None };
        let found = ecr_login::find(folder.as_deref(), &request)?;
        if let Source::Spared(failure) = &found.source {
            eprintln!("kubestrap: this is the login from before, for it failed to {failure}");
        }
        if self.show {
            print(&format!("{}\n", found.login.password.expose()))?;
            return Ok(ExitCode::Done);
        }
        let from = match found.source {
            Source::Cache => "the cache",
            Source::Spared(_) => "the cache; ECR could not be asked",
            Source::Ecr => "ECR",
        };
        let (login, life) = (&found.login, found.login.life(Timestamp::now()));
        match self.output.output {
            Form::Json => print_json(&json!({
                "registry": registry.host(), "api": registry.api().to_string(), "username": login.username,
                "expires_at": login.expires_at, "lives_s": life.as_secs(), "from": from,
            }))?,
            Form::Human => print(&format!(
                "registry   {}\napi        {}\nusername   {}\npassword   not shown (--show prints it)\n\
                 expires    {:.0} (in {} min)\nfrom       {from}\n",
                registry.host(),
                registry.api(),
                login.username,
                login.expires_at,
                life.as_secs() / 60
            ))?,
        }
        Ok(ExitCode::Done)
    }
}
