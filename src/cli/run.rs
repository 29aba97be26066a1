//! `run`: the service. Becomes a node if needed, then carries out its duties until it is told to stop.

use super::compose;
use super::last_word::LastWord;
use super::state::Lock;
use super::{Global, trace_file, trust};
use crate::adapters::token_cache::{self, TokenCache};
use crate::observe::logs::Log;
use crate::observe::metrics::{self, Metrics};
use crate::observe::notify::{EXTEND_EVERY, Notify};
use crate::observe::plugin_counts::PluginCounts;
use crate::observe::progress::Progress;
use crate::observe::screen::Screen;
use crate::observe::trace::Recorder;
use crate::observe::{Fan, calls::CallLog, serve};
use clap::Args;
use futures_util::future::{Either, select};
use kubestrap_core::duties;
use kubestrap_core::end::launch;
use kubestrap_core::engine::{self, Duty, Step};
use kubestrap_core::gate::{Chain, Gate};
use kubestrap_core::identity;
use kubestrap_core::model::cause::{Cause, ExitCode, Failure, Outcome};
use kubestrap_core::model::report::Phase;
use kubestrap_core::node::{Node, Observer};
use kubestrap_core::steps;
use std::cell::RefCell;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How often the live line, the trace and systemd are looked after while the machine becomes a node.
const BUSY_TICK: Duration = Duration::from_secs(1);
/// The same on a node: only the textfile needs it, and node_exporter is scraped every 15 s or less often.
const CALM_TICK: Duration = Duration::from_secs(15);
/// Who this machine is was never slow to learn within this time; what takes longer is told.
const UNREMARKABLE: Duration = Duration::from_secs(2);
/// Stopping takes less than five seconds; the last report may take this much of it.
const FAREWELL: Duration = Duration::from_secs(4);
/// What the launch hook is told after a failure may take this long: nobody waits for an agent that failed.
const SIGNAL: Duration = Duration::from_secs(30);
/// With `--once`: how long a node may take to become Ready where a launch hook waits for it.
const LAUNCH_PATIENCE: Duration = Duration::from_secs(10 * 60);

/// Become a node if needed, then carry out the node's duties until stopped. This is the service.
///
/// Running it again at any time is safe: what is done is not done again, and what was interrupted is finished.
#[derive(Args)]
#[command(after_help = "Examples:
  kubestrap run                       what the systemd unit does
  kubestrap run --once                end when the machine is a node (user-data, image tests)
  kubestrap run --skip apply-addons   leave an optional step out

SIGTERM and SIGINT stop it within five seconds; a kubeadm that runs goes on and is found again by the next run.")]
pub struct Run {
    /// End when the machine is a node, instead of staying as its agent.
    #[arg(long)]
    once: bool,
    /// Of the optional steps, carry out only these.
    #[arg(long, value_name = "STEP", value_delimiter = ',')]
    only: Vec<String>,
    /// Leave these optional steps out.
    #[arg(long, value_name = "STEP", value_delimiter = ',', conflicts_with = "only")]
    skip: Vec<String>,
}

impl Run {
    /// Runs until the node is made (`--once`), a signal comes, or a failure ends it.
    pub async fn run(self, global: &Global, screen: &Screen) -> Outcome<ExitCode> {
        let stop = stop_signal()?;
        // Before anything is asked of anyone: a second process must not even report.
        let lock = Lock::take(global)?;
        match select(pin!(self.start(global, screen)), pin!(stop)).await {
            Either::Left((result, stop)) => {
                let agent = result?;
                let result = agent.live(self.once, stop).await;
                drop(lock);
                result
            }
            // Told to stop before it knew who it is: nobody to report as.
            Either::Right(_) => Ok(ExitCode::Done),
        }
    }

    async fn start(&self, global: &Global, screen: &Screen) -> Outcome<Agent> {
        let mut metrics = Metrics::default();
        let plugins = global.below_root(Path::new(token_cache::FOLDER));
        metrics.show_plugins(PluginCounts(TokenCache::new(&plugins, trust::own_uid())));
        let metrics = Rc::new(metrics);
        let recorder = Rc::new(Recorder::new(jiff::Timestamp::now()));
        let progress = Rc::new(Progress::new(screen.clone()));
        let notify = Rc::new(Notify::default());
        let watchers: Vec<Rc<dyn Observer>> =
            vec![Rc::<Log>::default(), notify.clone(), progress.clone(), metrics.clone(), recorder.clone()];
        let gates: Vec<Rc<dyn Gate>> = vec![metrics.clone(), recorder.clone(), Rc::new(CallLog)];
        let node = {
            // The metadata service may be late by minutes: systemd must not lose its patience meanwhile.
            let patient = async {
                notify.extend();
                tokio::time::sleep(UNREMARKABLE).await;
                let what = "the instance metadata service, which has not said yet who this machine is";
                tracing::info!("waiting for {what}");
                notify.waiting(what);
                loop {
                    notify.extend();
                    tokio::time::sleep(EXTEND_EVERY).await;
                }
            };
            let composed = compose::node(global, Rc::new(Chain(gates)), Rc::new(Fan(watchers)));
            match select(pin!(composed), pin!(patient)).await {
                Either::Left((node, _)) => node?,
                Either::Right((never, _)) => never,
            }
        };
        let steps = steps::selected(steps::of(&node.settings), &self.only, &self.skip)?;
        identity::bind_state(&*node.world.files, &node.identity.key())?;
        if let Some(address) = node.settings.metrics.listen {
            let listener = serve::bind(address).await?;
            let (metrics, node) = (metrics.clone(), node.clone());
            let page = Rc::new(move || {
                metrics.refresh(&node.status());
                metrics.encode()
            });
            tokio::task::spawn_local(serve::serve(listener, page));
        }
        let duties = duties::of(&node.settings);
        let textfile = node.settings.metrics.textfile.as_deref().map(|path| global.below_root(path));
        Ok(Agent { node, steps, duties, metrics, recorder, progress, notify, textfile, said: RefCell::default() })
    }
}

/// A node with everybody who watches it.
struct Agent {
    node: Node,
    steps: Vec<Box<dyn Step>>,
    duties: Vec<Box<dyn Duty>>,
    metrics: Rc<Metrics>,
    recorder: Rc<Recorder>,
    progress: Rc<Progress>,
    notify: Rc<Notify>,
    textfile: Option<PathBuf>,
    said: RefCell<Option<LastWord>>,
}

impl Agent {
    /// The story against the signal; then the farewell: a last report, the trace, the metrics.
    async fn live(self, once: bool, stop: impl Future<Output = ()> + Unpin) -> Outcome<ExitCode> {
        let ended = {
            let story = pin!(async {
                match once {
                    true => self.bootstrap_only().await,
                    false => engine::live(&self.node, &self.steps, &self.duties).await.map(|never| match never {}),
                }
            });
            let beside = pin!(self.look_after());
            match select(select(story, stop), beside).await {
                Either::Left((Either::Left((result, _)), _)) => Some(result),
                Either::Left((Either::Right(_), _)) => None,
                Either::Right((never, _)) => match never {},
            }
        };
        // Dropping the story is what kill -9 does; nothing that was begun is left in our hands.
        let phase = match &ended {
            None => Phase::Stopped,
            Some(Ok(())) => Phase::Ready,
            Some(Err(_)) => Phase::Failed,
        };
        let farewell = duties::final_report(&self.node, phase);
        let reported = match tokio::time::timeout(FAREWELL, farewell).await {
            Ok(Ok(())) => true,
            Ok(Err(failure)) => {
                tracing::warn!("the last report was not accepted: {failure}");
                false
            }
            Err(_) => {
                tracing::warn!("the last report was not accepted within {} s", FAREWELL.as_secs());
                false
            }
        };
        if let Some(Err(failure)) = &ended {
            self.signal_failure(failure, reported).await;
        }
        self.save();
        ended.unwrap_or(Ok(())).map(|()| ExitCode::Done)
    }

    /// The bootstrap, with the report beside it.
    async fn bootstrap_only(&self) -> Outcome<()> {
        let early: Vec<Box<dyn Duty>> =
            duties::of(&self.node.settings).into_iter().filter(|duty| duty.runs_during_bootstrap()).collect();
        let bootstrap = pin!(async {
            engine::bootstrap(&self.node, &self.steps).await?;
            self.launch_signalled().await
        });
        match select(bootstrap, pin!(engine::supervise(&self.node, &early))).await {
            Either::Left((result, _)) => result,
            Either::Right((never, _)) => match never {},
        }
    }

    /// Where a launch hook waits for this machine: until the duty that runs beside has told it, which needs a node that is
    /// Ready.
    async fn launch_signalled(&self) -> Outcome<()> {
        let Some(hook) = launch::hook(&self.node) else { return Ok(()) };
        let began = self.node.world.time.uptime();
        while !launch::is_signalled(&self.node, hook, None)? {
            if self.node.world.time.uptime().saturating_sub(began) > LAUNCH_PATIENCE {
                let within = LAUNCH_PATIENCE.as_secs();
                tracing::warn!(
                    "the launch hook {hook} was not told to continue: the node is not Ready after {within} s"
                );
                break;
            }
            tokio::time::sleep(BUSY_TICK).await;
        }
        Ok(())
    }

    /// What the launch hook is told of a bootstrap that failed.
    async fn signal_failure(&self, failure: &Failure, reported: bool) {
        match tokio::time::timeout(SIGNAL, launch::last_word(&self.node, failure, reported)).await {
            Ok(Ok(true)) => tracing::warn!("the launch hook was told to abandon this instance: {failure}"),
            Ok(Ok(false)) => {}
            Ok(Err(signal)) => tracing::warn!("the launch hook was told nothing: {signal}"),
            Err(_) => tracing::warn!("the launch hook was told nothing within {} s", SIGNAL.as_secs()),
        }
    }

    /// The live line, systemd's patience, the trace and the textfile, for as long as the agent lives.
    async fn look_after(&self) -> Infallible {
        let mut extended = Duration::MAX;
        loop {
            let busy = self.node.status().phase != Phase::Ready;
            self.progress.redraw();
            if busy && extended >= EXTEND_EVERY {
                self.notify.extend();
                extended = Duration::ZERO;
            }
            self.save();
            let tick = if busy { BUSY_TICK } else { CALM_TICK };
            tokio::time::sleep(tick).await;
            extended = extended.saturating_add(tick);
        }
    }

    /// Trace, last word and textfile. None is worth a failure: the machine is more important than what is told of it.
    fn save(&self) {
        if let Some(life) = self.recorder.news()
            && let Err(failure) = trace_file::keep(&*self.node.world.files, life)
        {
            tracing::warn!("the trace of the bootstrap is not kept: {failure}");
        }
        let word = LastWord::of(&self.node.status());
        if self.said.borrow().as_ref() != Some(&word) && word.keep(&*self.node.world.files).is_ok() {
            self.said.replace(Some(word));
        }
        if let Some(path) = &self.textfile {
            self.metrics.refresh(&self.node.status());
            if let Err(error) = metrics::write_textfile(path, &self.metrics.encode()) {
                tracing::warn!("failed to write the metrics to {}: {error}", path.display());
            }
        }
    }
}

/// Resolves with SIGTERM or SIGINT.
fn stop_signal() -> Outcome<impl Future<Output = ()> + Unpin> {
    let listen =
        |kind| signal(kind).map_err(|error| Failure::new(Cause::Internal, "listen for signals", error.to_string()));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(Box::pin(async move {
        let name = match select(pin!(terminate.recv()), pin!(interrupt.recv())).await {
            Either::Left(_) => "SIGTERM",
            Either::Right(_) => "SIGINT",
        };
        tracing::info!("{name}: stopping");
    }))
}
