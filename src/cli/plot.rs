//! The SVG timeline of `analyze plot`. A pure function of the trace.

use super::analyze::end_of;
use crate::observe::text::duration;
use crate::observe::trace::{Life, Span, Trace};
use std::fmt::Write;
use std::time::Duration;

/// Pixels.
const LEFT: f64 = 16.0;
const WIDTH: f64 = 960.0;
const ROW: f64 = 20.0;
const LABELS: f64 = 420.0;
/// Calls shorter than this share of the whole are not drawn: hundreds of them would hide the rest.
const SHORTEST_SHARE: f64 = 0.002;

/// One timeline below the other, oldest first.
pub fn svg(trace: &Trace) -> String {
    let mut body = String::new();
    let mut y = 24.0;
    for life in &trace.lives {
        y = draw_life(life, y, &mut body);
    }
    let (width, height) = (LEFT + WIDTH + LABELS, y + 8.0);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n{STYLE}{body}</svg>\n"
    )
}

const STYLE: &str = "<style>
  text { font: 12px sans-serif; fill: #222 } .head { font-weight: bold } .dim { fill: #777 }
  .step { fill: #4a7fb5 } .failed { fill: #c0504d } .wait { fill: #d9c27a } .call { fill: #8fb98b } .grid { stroke: #ddd }
</style>
<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>
";

fn draw_life(life: &Life, top: f64, out: &mut String) -> f64 {
    let length = length(life);
    let scale = WIDTH / length as f64;
    let outcome = if life.ready { "became a node" } else { "did not become a node" };
    let head = format!("{:.0}: {outcome} in {}", life.started_at, time(length));
    text(out, LEFT, top, "head", &head);
    let shortest = (length as f64 * SHORTEST_SHARE) as u64;
    let spans: Vec<(&Span, &str)> = rows(life, shortest);
    let bottom = top + ROW * (spans.len() as f64 + 1.5);
    grid(out, length, scale, top + 6.0, bottom - ROW / 2.0);
    for (index, (span, class)) in spans.iter().enumerate() {
        let y = top + ROW * (index as f64 + 1.0);
        bar(out, span, class, length, scale, y);
    }
    bottom + ROW
}

/// The time axis ends with the life, or with the last span of one that was killed; never zero.
fn length(life: &Life) -> u64 {
    let spans = life.steps.iter().chain(&life.waits).chain(&life.calls);
    let last = spans.map(|span| if span.took_ms.is_some() { end_of(span) } else { span.began_ms }).max();
    life.ended_ms.unwrap_or_default().max(last.unwrap_or_default()).max(1)
}

/// In order of their beginning: steps, what they waited for, and the calls that took a visible time.
fn rows(life: &Life, shortest: u64) -> Vec<(&Span, &'static str)> {
    let steps = life.steps.iter().map(|span| (span, if span.cause.is_some() { "failed" } else { "step" }));
    let waits = life.waits.iter().map(|span| (span, "wait"));
    let long = life.calls.iter().filter(|span| span.took_ms.unwrap_or_default() > shortest);
    let mut spans: Vec<(&Span, &str)> = steps.chain(waits).chain(long.map(|span| (span, "call"))).collect();
    spans.sort_by_key(|(span, _)| span.began_ms);
    spans
}

fn bar(out: &mut String, span: &Span, class: &str, length: u64, scale: f64, y: f64) {
    let end = end_of(span).min(length);
    let x = LEFT + span.began_ms as f64 * scale;
    let width = (end.saturating_sub(span.began_ms) as f64 * scale).max(1.5);
    let label = match class {
        "wait" => format!("waited for {}", span.subject),
        "call" => format!("{} {}", span.name, span.subject),
        _ => span.name.clone(),
    };
    let times = if span.times > 1 { format!(" ({} times)", span.times) } else { String::new() };
    let took = span.took_ms.map_or_else(|| "did not end".to_owned(), time);
    let cause = span.cause.as_deref().map(|cause| format!(", {cause}")).unwrap_or_default();
    let label = format!("{label}{times}: {took}{cause}");
    let _ = writeln!(
        out,
        "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"14\"><title>{}</title></rect>",
        y - 11.0,
        escape(&label)
    );
    text(out, x + width + 4.0, y, if class == "call" { "dim" } else { "" }, &label);
}

fn grid(out: &mut String, length: u64, scale: f64, top: f64, bottom: f64) {
    let every = tick(length);
    for ms in (0..=length).step_by(usize::try_from(every).unwrap_or(usize::MAX)) {
        let x = LEFT + ms as f64 * scale;
        let _ = writeln!(out, "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{top:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\"/>");
        text(out, x + 2.0, bottom + 10.0, "dim", &time(ms));
    }
}

/// Milliseconds between grid lines: about ten of them, at round times.
fn tick(length: u64) -> u64 {
    const ROUND: &[u64] = &[
        1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000, 120_000, 300_000, 600_000,
        1_800_000, 3_600_000,
    ];
    ROUND.iter().copied().find(|round| length / round <= 12).unwrap_or(length.max(1))
}

fn text(out: &mut String, x: f64, y: f64, class: &str, content: &str) {
    let _ = writeln!(out, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escape(content));
}

fn time(ms: u64) -> String {
    duration(Duration::from_millis(ms))
}

/// Text from the store or a tool, safe inside an SVG element.
fn escape(content: &str) -> String {
    let mut out = String::with_capacity(content.len());
    for c in content.chars().take(160) {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(name: &str, subject: &str, began_ms: u64, took_ms: Option<u64>) -> Span {
        Span { name: name.to_owned(), subject: subject.to_owned(), began_ms, took_ms, times: 1, cause: None }
    }

    fn life() -> Life {
        Life {
            started_at: jiff::Timestamp::UNIX_EPOCH,
            ended_ms: None,
            ready: false,
            steps: vec![span("join-cluster", "not joined", 100, None)],
            waits: vec![span("join-cluster", "<script>alert(1)</script>", 105, Some(895))],
            calls: vec![span("objects.get", "a", 110, Some(0)), span("objects.get", "b&c", 200, Some(500))],
            calls_dropped: 0,
        }
    }

    #[test]
    fn content_cannot_leave_its_element() {
        let picture = svg(&Trace { schema: 1, lives: vec![life()] });
        assert!(!picture.contains("<script"), "{picture}");
        assert!(picture.contains("&lt;script&gt;") && picture.contains("b&amp;c"), "{picture}");
    }

    #[test]
    fn short_calls_are_left_out_and_unfinished_spans_reach_the_end() {
        let life = life();
        assert_eq!(length(&life), 1000);
        let rows = rows(&life, 2);
        assert_eq!(rows.iter().map(|(_, class)| *class).collect::<Vec<_>>(), ["step", "wait", "call"]);
        let picture = svg(&Trace { schema: 1, lives: vec![life] });
        // From 100 of 1000 ms to the end: nine tenths of the width.
        assert!(picture.contains("class=\"step\" x=\"112.0\" y=\"33.0\" width=\"864.0\""), "{picture}");
        assert!(picture.contains("join-cluster: did not end"), "{picture}");
    }

    #[test]
    fn grids_are_round_and_few() {
        assert_eq!((tick(1), tick(18_300), tick(3_600_000)), (1, 2000, 300_000));
        assert!(tick(u64::MAX) >= u64::MAX / 12);
    }
}
