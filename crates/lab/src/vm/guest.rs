//! Commands in a virtual machine, through QEMU's guest agent: one JSON object a line over a virtual serial port, which
//! needs neither a network nor keys (QEMU's documentation, "QEMU Guest Agent Protocol Reference").

use crate::command::Finished;
use crate::machine::exec::PATH;
use crate::{Result, attempted, fail};
use base64::Engine;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// An answer of the agent itself, on a processor that is busy.
const ANSWER: Duration = Duration::from_secs(10);
/// How often a command that runs is looked at.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// The agent throws away what it was in the middle of when it reads this byte, and answers the next synchronisation
/// with it in front: what came before belongs to somebody else.
const FLUSH: u8 = 0xff;

/// Where the agent's port is here.
pub struct Guest(PathBuf);

impl Guest {
    /// The agent behind this socket.
    pub fn at(socket: PathBuf) -> Guest {
        Guest(socket)
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// When the agent does not answer, or the command lasts longer than this.
    pub fn exec(&self, arguments: &[&str], deadline: Duration) -> Result<Finished> {
        let what = || format!("run `{}` through the guest agent", arguments.join(" "));
        attempted(self.run(arguments, deadline), what())
    }

    fn run(&self, arguments: &[&str], deadline: Duration) -> Result<Finished> {
        let Some((program, arguments)) = arguments.split_first() else { return fail("there is no command") };
        let began = Instant::now();
        let mut agent = Conversation::begin(&self.0)?;
        let environment = [
            &format!("PATH={PATH}"),
            "HOME=/root",
            "USER=root",
            "LANG=C.UTF-8",
            "KUBECONFIG=/etc/kubernetes/admin.conf",
        ];
        let order = json!({ "path": program, "arg": arguments, "env": environment, "capture-output": true });
        let started = agent.ask("guest-exec", &order)?;
        loop {
            let state = agent.ask("guest-exec-status", &json!({ "pid": started["pid"] }))?;
            if state["exited"] == true {
                return finished(&state);
            }
            if began.elapsed() > deadline {
                return fail(format!("it has not ended after {} s", deadline.as_secs()));
            }
            std::thread::sleep(ASK_EVERY);
        }
    }
}

fn finished(state: &Value) -> Result<Finished> {
    let text = |key: &str| -> Result<String> {
        let encoded = state[key].as_str().unwrap_or_default();
        let bytes = attempted(base64::engine::general_purpose::STANDARD.decode(encoded), format!("read {key}"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let code = state["exitcode"].as_i64().and_then(|code| i32::try_from(code).ok());
    Ok(Finished { code, stdout: text("out-data")?, stderr: text("err-data")? })
}

struct Conversation {
    lines: BufReader<UnixStream>,
}

impl Conversation {
    fn begin(socket: &PathBuf) -> Result<Conversation> {
        let stream = attempted(UnixStream::connect(socket), format!("connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        let mut agent = Conversation { lines: BufReader::new(stream) };
        let id = i64::from(std::process::id()) << 20 | i64::from(began_at());
        agent.send(&[&[FLUSH], request("guest-sync-delimited", &json!({ "id": id })).as_bytes()].concat())?;
        // Answers to somebody who did not wait for them come first.
        while agent.answer()?["return"] != id {}
        Ok(agent)
    }

    fn ask(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        self.send(request(command, arguments).as_bytes())?;
        let mut answer = self.answer()?;
        match answer["error"]["desc"].as_str() {
            Some(error) => fail(format!("{command}: {error}")),
            None => Ok(answer["return"].take()),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        attempted(self.lines.get_mut().write_all(bytes), "speak to the guest agent")
    }

    fn answer(&mut self) -> Result<Value> {
        let mut line = Vec::new();
        let read = attempted(self.lines.read_until(b'\n', &mut line), "hear the guest agent")?;
        if read == 0 {
            return fail("the guest agent's port was closed");
        }
        Ok(parse(&line))
    }
}

fn request(command: &str, arguments: &Value) -> String {
    format!("{}\n", json!({ "execute": command, "arguments": arguments }))
}

/// What is no JSON was cut in two by a flush: nobody's answer.
fn parse(line: &[u8]) -> Value {
    let start = line.iter().rposition(|byte| *byte == FLUSH).map_or(0, |flush| flush + 1);
    serde_json::from_slice(&line[start..]).unwrap_or_default()
}

/// Tells one conversation from the next.
fn began_at() -> u32 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map(|since| since.subsec_nanos() & 0xf_ffff).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_command_runs_after_stale_answers_were_thrown_away() {
        let place = tempfile::tempdir().expect("folder");
        let socket = place.path().join("agent");
        let listener = UnixListener::bind(&socket).expect("listen");
        let agent = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("accept");
            let mut lines = BufReader::new(stream);
            let mut hear = |answer: &dyn Fn(&Value) -> Vec<u8>| {
                let mut line = Vec::new();
                lines.read_until(b'\n', &mut line).expect("hear");
                let asked = parse(&line);
                lines.get_mut().write_all(&answer(&asked)).expect("answer");
                asked
            };
            hear(&|asked| {
                let stale = b"{\"return\": {\"pid\": 1}}\n{\"ret".to_vec();
                [stale, vec![FLUSH], format!("{}\n", json!({ "return": asked["arguments"]["id"] })).into_bytes()]
                    .concat()
            });
            let order = hear(&|_| b"{\"return\": {\"pid\": 7}}\n".to_vec());
            hear(&|_| b"{\"return\": {\"exited\": false}}\n".to_vec());
            let last = hear(&|_| {
                b"{\"return\": {\"exited\": true, \"exitcode\": 3, \"out-data\": \"aGk=\", \"err-data\": \"bm8=\"}}\n"
                    .to_vec()
            });
            (order, last)
        });
        let done = Guest::at(socket).exec(&["ls", "-l"], ANSWER).expect("exec");
        assert_eq!(done, Finished { code: Some(3), stdout: "hi".to_owned(), stderr: "no".to_owned() });
        let (order, last) = agent.join().expect("agent");
        assert_eq!((&order["execute"], &order["arguments"]["arg"]), (&json!("guest-exec"), &json!(["-l"])));
        assert_eq!(last["arguments"]["pid"], 7);
    }

    #[test]
    fn nobody_there_is_said() {
        let place = tempfile::tempdir().expect("folder");
        let error = Guest::at(place.path().join("none")).exec(&["ls"], ANSWER).expect_err("nobody").to_string();
        assert!(error.starts_with("failed to run `ls` through the guest agent: failed to connect"), "{error}");
    }
}
