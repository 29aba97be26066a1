//! `analyze`: where bootstrap time went, like systemd-analyze.

use super::{Form, Global, Output, compose, plot, print, print_json, trace_file};
use crate::observe::text::{duration, table};
use crate::observe::trace::{Life, Span, TRACE, Trace};
use clap::{Args, Subcommand};
use kubestrap_core::model::cause::{Cause, ExitCode, Failure, Outcome};
use kubestrap_core::model::plain::plain;
use std::collections::BTreeMap;
use std::time::Duration;

/// Show where bootstrap time went.
///
/// `run` keeps what each step did, what it waited for, and every call it made outside, until the machine is a node.
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  kubestrap analyze                      a table of the last bootstrap
  kubestrap analyze plot > bootstrap.svg a timeline to open in a browser"
)]
pub struct Analyze {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    output: Output,
}

#[derive(Subcommand)]
enum What {
    /// Print an SVG timeline.
    Plot,
}

impl Analyze {
    /// Prints the table or the timeline.
    pub fn run(self, global: &Global) -> Outcome<ExitCode> {
        let files = compose::early(global)?.files;
        let trace = trace_file::load(&*files)?.ok_or_else(|| {
            let why = format!("there is no {TRACE}: `kubestrap run` has not applied any step here");
            Failure::new(Cause::Usage, "analyze the bootstrap", why).advise("run `kubestrap run` first")
        })?;
        match (self.what, self.output.output) {
            (Some(What::Plot), _) => print(&plot::svg(&trace))?,
            (None, Form::Json) => print_json(&trace)?,
            (None, Form::Human) => print(&human(&trace))?,
        }
        Ok(ExitCode::Done)
    }
}

fn human(trace: &Trace) -> String {
    let mut out = String::new();
    for life in &trace.lives {
        out.push_str(&headline(life));
        out.push('\n');
        out.push_str(&table(&step_rows(life)));
        out.push_str("\nCalls outside\n");
        out.push_str(&table(&call_rows(life)));
        if life.calls_dropped > 0 {
            out.push_str(&format!("(and {} calls that were not kept)\n", life.calls_dropped));
        }
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn headline(life: &Life) -> String {
    let end = match (life.ended_ms, life.ready) {
        (Some(ms), true) => format!("the machine was a node after {}", time(ms)),
        (Some(ms), false) => format!("it ended after {} without becoming a node", time(ms)),
        (None, _) => "it did not end by itself (killed, or still running)".to_owned(),
    };
    format!("Bootstrap of {:.0}: {end}\n", life.started_at)
}

fn time(ms: u64) -> String {
    duration(Duration::from_millis(ms))
}

fn step_rows(life: &Life) -> Vec<Vec<String>> {
    let mut rows = vec![["AT", "TOOK", "STEP", "RESULT"].map(str::to_owned).to_vec()];
    for step in &life.steps {
        rows.push(row(step, &step.name, step.cause.as_deref().unwrap_or("ok")));
        let inside =
            |wait: &&Span| wait.began_ms >= step.began_ms && wait.began_ms <= end_of(step) && wait.name == step.name;
        rows.extend(life.waits.iter().filter(inside).map(|wait| {
            let text = format!("  waited for {}", plain(&wait.subject));
            row(wait, &text, "")
        }));
    }
    rows
}

fn row(span: &Span, name: &str, result: &str) -> Vec<String> {
    let (took, result) = match span.took_ms {
        Some(ms) => (time(ms), result),
        None => ("-".to_owned(), "did not end"),
    };
    vec![format!("+{}", time(span.began_ms)), took, name.to_owned(), result.to_owned()]
}

/// When a span ended; one that did not lasts for ever.
pub fn end_of(span: &Span) -> u64 {
    span.took_ms.map_or(u64::MAX, |took| span.began_ms.saturating_add(took))
}

/// One row for each port method: how often, how long in all, the longest, the failures; the longest total first.
fn call_rows(life: &Life) -> Vec<Vec<String>> {
    #[derive(Default)]
    struct Sum {
        times: u64,
        total: u64,
        longest: u64,
        failed: u64,
    }
    let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
    for call in &life.calls {
        let sum = sums.entry(&call.name).or_default();
        let took = call.took_ms.unwrap_or_default();
        sum.times += call.times;
        sum.total += took;
        sum.longest = sum.longest.max(took / call.times.max(1));
        sum.failed += u64::from(call.cause.is_some()) * call.times;
    }
    let mut sums: Vec<(&str, Sum)> = sums.into_iter().collect();
    sums.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.total));
    let mut rows = vec![["CALL", "TIMES", "TOTAL", "LONGEST", "FAILED"].map(str::to_owned).to_vec()];
    rows.extend(sums.into_iter().map(|(name, sum)| {
        vec![name.to_owned(), sum.times.to_string(), time(sum.total), time(sum.longest), sum.failed.to_string()]
    }));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(name: &str, subject: &str, began_ms: u64, took_ms: Option<u64>) -> Span {
        Span { name: name.to_owned(), subject: subject.to_owned(), began_ms, took_ms, times: 1, cause: None }
    }

    #[test]
    fn a_table_tells_steps_waits_and_calls() {
        let mut polled = span("objects.get", "prod/join/worker.json", 110, Some(90));
        polled.times = 3;
        let life = Life {
            started_at: jiff::Timestamp::UNIX_EPOCH,
            ended_ms: Some(2000),
            ready: true,
            steps: vec![span("join-cluster", "not joined", 100, Some(1800))],
            waits: vec![span("join-cluster", "a join bundle", 105, Some(200))],
            calls: vec![polled, span("jobs.start", "kubeadm-join", 300, Some(5))],
            calls_dropped: 0,
        };
        let shown = human(&Trace { schema: 1, lives: vec![life] });
        for line in [
            "Bootstrap of 1970-01-01T00:00:00Z: the machine was a node after 2.0 s",
            "+100 ms  1.8 s   join-cluster                ok",
            "+105 ms  200 ms    waited for a join bundle",
            "objects.get  3      90 ms  30 ms    0",
            "jobs.start   1      5 ms   5 ms     0",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line:?} is not in\n{shown}");
        }
    }
}
