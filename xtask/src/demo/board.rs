//! The live view of the demo: a line for each node on a terminal, the events one by one elsewhere.

use super::world::Line;
use serde_json::Value;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// What is known of one node.
struct Row {
    name: &'static str,
    doing: String,
    done: Vec<String>,
    ready: bool,
    ready_after: Option<Duration>,
    last: String,
}

/// The view.
pub struct Board {
    rows: Vec<Row>,
    began: Instant,
    terminal: bool,
    drawn: usize,
}

impl Board {
    /// A view of nodes about which nothing is known.
    pub fn new(names: &[&'static str]) -> Self {
        let row = |name: &&'static str| Row {
            name,
            doing: "starting".to_owned(),
            done: Vec::new(),
            ready: false,
            ready_after: None,
            last: String::new(),
        };
        let terminal = std::io::stdout().is_terminal();
        Board { rows: names.iter().map(row).collect(), began: Instant::now(), terminal, drawn: 0 }
    }

    /// Takes a line of a node's JSON log.
    pub fn take(&mut self, line: &Line) {
        let elapsed = self.began.elapsed();
        let Some(row) = self.rows.iter_mut().find(|row| row.name == line.node) else { return };
        let Ok(event) = serde_json::from_str::<Value>(&line.text) else {
            row.last.clone_from(&line.text);
            return;
        };
        let field = |name: &str| event.get(name).and_then(Value::as_str);
        let message = field("message").unwrap_or_default();
        if field("level").is_some_and(|level| level == "WARN" || level == "ERROR") {
            row.last = message.to_owned();
        }
        if let Some(step) = field("step") {
            let ended = event.get("took_ms").is_some() && field("cause").is_none();
            let nothing_to_do = message.contains(": nothing to do: ");
            if (ended || nothing_to_do) && !row.done.iter().any(|done| done == step) {
                row.done.push(step.to_owned());
            }
            row.doing = message.to_owned();
        }
        if field("phase") == Some("ready") {
            (row.ready, row.ready_after) = (true, Some(elapsed));
            row.doing = "ready".to_owned();
        }
        if !self.terminal && (field("step").is_some() || field("phase").is_some()) {
            println!("{:6.1} s  {:9} {message}", elapsed.as_secs_f64(), line.node);
        }
    }

    /// Whether every node is one.
    pub fn all_ready(&self) -> bool {
        self.rows.iter().all(|row| row.ready)
    }

    /// The last complaint of a node.
    pub fn last_words(&self, name: &str) -> &str {
        self.rows.iter().find(|row| row.name == name).map_or("", |row| &row.last)
    }

    /// Draws the lines over the earlier ones. Nothing happens where nobody watches.
    pub fn draw(&mut self) {
        if !self.terminal {
            return;
        }
        let mut out = String::new();
        if self.drawn > 0 {
            out.push_str(&format!("\x1b[{}A", self.drawn));
        }
        for row in &self.rows {
            let (mark, time) = match row.ready_after {
                Some(after) => ("\x1b[32m\u{2713}\x1b[0m", after),
                None => ("\u{b7}", self.began.elapsed()),
            };
            let text = format!("{:9} {:5.1} s  {} steps  {}", row.name, time.as_secs_f64(), row.done.len(), row.doing);
            let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(110).collect();
            out.push_str(&format!("\r\x1b[2K {mark} {text}\n"));
        }
        self.drawn = self.rows.len();
        print!("{out}");
        // A terminal that went away is not a reason to stop.
        let _ = std::io::stdout().flush();
    }

    /// The last picture.
    pub fn finish(&mut self) {
        self.draw();
        self.drawn = 0;
    }
}
