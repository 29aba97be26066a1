//! The command line: one file per verb. Each verb is a composition root: it makes the world it needs, calls core, and
//! shows what came back. Decisions belong in core.

mod analyze;
mod cluster;
mod completions;
mod compose;
mod config_verb;
mod confirm;
mod control_planes;
mod doctor;
mod drift;
mod ecr;
mod ecr_login;
mod ecr_provider;
mod exit_codes;
mod install;
mod job;
mod last_word;
mod leave;
mod member;
mod pki;
mod plan;
mod plot;
mod reset;
mod rollout;
mod run;
mod state;
mod status;
mod token;
mod trace_file;
mod trust;
mod unlock;

use crate::observe::logs::{self, LogFormat};
use crate::observe::screen::Screen;
use clap::{Args, Parser, Subcommand, ValueEnum};
use kubestrap_core::model::cause::{Cause, ExitCode, Failure, Outcome};
use kubestrap_core::model::plain::{plain, plain_lines};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The program's command line.
#[derive(Parser)]
#[command(name = "kubestrap", version, about, long_about = LONG_ABOUT, after_long_help = AFTER_HELP)]
#[command(disable_help_subcommand = true, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

const LONG_ABOUT: &str = "\
Turns a bare machine into a Kubernetes node, and keeps it a good one.

Nodes of a cluster meet only in an object store (S3, or a directory). The first master runs `kubeadm init` and \
publishes a short-lived join bundle; workers wait for it, check it, and join. There is no other server.";

const AFTER_HELP: &str = "\
Examples:
  kubestrap config check           every problem of the configuration at once
  kubestrap doctor                 can this machine do its job? each failure with its fix
  kubestrap plan                   what `run` would do here, and why; changes nothing
  kubestrap run                    the service: become a node if needed, then stay a good one
  kubestrap install                what a node is made of: containerd, kubelet, kubeadm and the rest
  kubestrap status --cluster       all nodes of the cluster, as they report themselves
  kubestrap drift                  is this node what it should be? exit code 20 when it is not
  kubestrap ecr token --registry HOST
                                   does ECR give this machine a login, and for how long?
  kubestrap status --cluster --store s3://acme-clusters/k8s --cluster-name prod
                                   the same from a laptop without any configuration

Files:
  /etc/kubestrap/config.yaml       configuration; further layers: `kubestrap config --help`
  /var/lib/kubestrap               state: journal, identity, trace of the bootstrap

Environment:
  KUBESTRAP_LOG                    log filter, for example `debug` or `kubestrap=debug`
  KUBESTRAP_*                      settings, see `kubestrap config --help`

The exit code says what kind of failure ended the program; `kubestrap exit-codes` lists them.";

/// Options of every verb.
#[derive(Args, Clone)]
pub struct Global {
    /// Read this configuration file instead of /etc/kubestrap/config.yaml.
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub config: Option<PathBuf>,
    /// Put this folder before every path of the machine; for tests, images and the demo.
    #[arg(long, global = true, value_name = "DIR", default_value = "/", hide_default_value = true)]
    #[arg(help_heading = "Global options")]
    pub root: PathBuf,
    /// The form of the log on standard error: human on a terminal, journald under systemd, JSON otherwise.
    #[arg(long, global = true, value_name = "FORM", default_value = "auto", hide_default_value = true)]
    #[arg(help_heading = "Global options")]
    pub log: LogFormat,
}

impl Global {
    /// Where a path of the machine is, seen from this process.
    pub fn below_root(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// The form of what is printed on standard output.
#[derive(Args, Clone, Copy)]
pub struct Output {
    /// The form of the answer on standard output.
    #[arg(long, short, value_enum, value_name = "FORM", default_value_t = Form::Human)]
    pub output: Form,
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people.
    Human,
    /// One JSON document.
    Json,
}

#[derive(Subcommand)]
enum Verb {
    Run(run::Run),
    Plan(plan::Plan),
    Status(status::Status),
    Analyze(analyze::Analyze),
    Doctor(doctor::Doctor),
    Drift(drift::Drift),
    Config(config_verb::Config),
    Install(install::Install),
    Unlock(unlock::Unlock),
    Reset(reset::Reset),
    Member(member::Member),
    Leave(leave::Leave),
    Rollout(rollout::Rollout),
    Token(token::Token),
    Pki(pki::Pki),
    Cluster(cluster::ClusterVerb),
    Ecr(ecr::Ecr),
    #[command(hide = true)]
    EcrCredentialProvider(ecr_provider::EcrProvider),
    Completions(completions::Completions),
    ExitCodes(exit_codes::ExitCodes),
    #[command(hide = true)]
    Job(job::Job),
}

/// Reads the command line, carries it out, and says how it ended.
pub fn main() -> ExitCode {
    if let Some(code) = ecr_provider::early() {
        return code;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::Usage } else { ExitCode::Done };
        }
    };
    match run(cli) {
        Ok(code) => code,
        Err(failure) => {
            report(&failure);
            failure.cause.row().exit
        }
    }
}

fn run(cli: Cli) -> Outcome<ExitCode> {
    match cli.verb {
        // A supervisor of a job outlives us; it has no log and no runtime of its own.
        Verb::Job(job) => return job.run(),
        // These make a runtime when they need one.
        Verb::Ecr(ecr) => return ecr.run(),
        Verb::EcrCredentialProvider(provider) => return provider.run(),
        _ => {}
    }
    let screen = Screen::stderr();
    logs::init(cli.global.log, &screen)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Cause::Internal, "start the runtime", error.to_string()))?;
    let local = tokio::task::LocalSet::new();
    let result = local.block_on(&runtime, dispatch(cli.verb, &cli.global, &screen));
    // A name that is being resolved in another thread must not keep us.
    runtime.shutdown_background();
    screen.live(None);
    result
}

async fn dispatch(verb: Verb, global: &Global, screen: &Screen) -> Outcome<ExitCode> {
    match verb {
        Verb::Run(verb) => verb.run(global, screen).await,
        Verb::Plan(verb) => verb.run(global).await,
        Verb::Status(verb) => verb.run(global).await,
        Verb::Analyze(verb) => verb.run(global),
        Verb::Doctor(verb) => verb.run(global).await,
        Verb::Drift(verb) => verb.run(global).await,
        Verb::Config(verb) => verb.run(global).await,
        Verb::Install(verb) => verb.run(global).await,
        Verb::Unlock(verb) => verb.run(global).await,
        Verb::Reset(verb) => verb.run(global).await,
        Verb::Member(verb) => verb.run(global).await,
        Verb::Leave(verb) => verb.run(global).await,
        Verb::Rollout(verb) => verb.run(global).await,
        Verb::Token(verb) => verb.run(global).await,
        Verb::Pki(verb) => verb.run(global).await,
        Verb::Cluster(verb) => verb.run(global).await,
        Verb::Ecr(verb) => verb.run(),
        Verb::EcrCredentialProvider(verb) => verb.run(),
        Verb::Completions(verb) => verb.run(),
        Verb::ExitCodes(verb) => verb.run(),
        Verb::Job(verb) => verb.run(),
    }
}

/// The failure that ends the program: what, why, what to do. A server's or a tool's own words are in it, and go to a
/// terminal.
fn report(failure: &Failure) {
    eprintln!("kubestrap: failed to {}: {}", plain(&failure.attempted), plain_lines(&failure.detail));
    eprintln!("  cause: {} (exit code {})", failure.cause.row().label, failure.cause.row().exit as u8);
    eprintln!("  fix:   {}", plain(failure.fix()));
}

/// Prints the answer of a verb. A reader that went away (`| head`) is not an error.
pub fn print(text: &str) -> Outcome<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Cause::FileAccess, "write to standard output", error.to_string()))
        }
        _ => Ok(()),
    }
}

/// Prints a JSON document.
pub fn print_json(value: &impl serde::Serialize) -> Outcome<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::new(Cause::Internal, "write the answer as JSON", error.to_string()))?;
    print(&format!("{text}\n"))
}
