//! Standard error, shared by the log and the live line that is redrawn below it.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// Clears the line the cursor is in.
const CLEAR: &[u8] = b"\r\x1b[2K";
/// Assumed when the terminal does not say how wide it is.
const WIDTH: u16 = 80;

/// A handle on standard error. Writers of whole lines and the live line take turns.
#[derive(Clone)]
pub struct Screen {
    state: Arc<Mutex<State>>,
    terminal: bool,
}

#[derive(Default)]
struct State {
    live: Option<String>,
}

impl Screen {
    /// Standard error as it is.
    pub fn stderr() -> Self {
        Screen { state: Arc::default(), terminal: std::io::stderr().is_terminal() }
    }

    /// Whether a person watches: the live line is drawn, and colours are used.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Replaces the live line; `None` removes it. Nothing happens when nobody watches.
    pub fn live(&self, line: Option<String>) {
        if !self.terminal {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.live.is_none() && line.is_none() {
            return;
        }
        state.live = line;
        // A terminal that went away is not a reason to stop.
        let _ = std::io::stderr().lock().write_all(&state.draw(b""));
    }
}

impl State {
    /// `lines` above the live line.
    fn draw(&self, lines: &[u8]) -> Vec<u8> {
        let mut out = CLEAR.to_vec();
        out.extend_from_slice(lines);
        if let Some(live) = &self.live {
            let width = terminal_size::terminal_size().map_or(WIDTH, |(width, _)| width.0);
            out.extend(live.chars().take(usize::from(width.saturating_sub(1))).collect::<String>().into_bytes());
        }
        out
    }
}

impl Write for Screen {
    fn write(&mut self, lines: &[u8]) -> std::io::Result<usize> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stderr = std::io::stderr().lock();
        match &state.live {
            Some(_) => stderr.write_all(&state.draw(lines))?,
            None => stderr.write_all(lines)?,
        }
        Ok(lines.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().lock().flush()
    }
}

impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Screen {
    type Writer = Screen;

    fn make_writer(&'a self) -> Screen {
        self.clone()
    }
}
