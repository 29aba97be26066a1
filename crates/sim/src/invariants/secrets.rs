//! Rule 6: the secret half of a token is in 0600 files below root-only folders, in the one object that must carry it,
//! and nowhere else.

use crate::universe::Universe;
use std::path::Path;

impl Universe {
    /// A token was made; from now on its secret half is looked for everywhere.
    pub fn learn_secret(&self, secret: &str) {
        self.monitor.borrow_mut().secrets.insert(secret.to_owned());
    }

    /// A private key was made: its one long line is a secret.
    pub fn learn_key(&self, pem: &str) {
        pem.lines().filter(|line| !line.starts_with("-----")).for_each(|line| self.learn_secret(line));
    }

    /// Whether a text holds a known secret.
    fn tells(&self, text: &str) -> bool {
        text.len() >= 16 && self.monitor.borrow().secrets.iter().any(|secret| text.contains(secret.as_str()))
    }

    /// A text that others can see.
    pub fn judge_text(&self, rule: u8, what: &str, text: &str) {
        if self.tells(text) {
            self.violate(rule, format!("a token's secret is in {what}"));
        }
    }

    /// The agent writes a file.
    pub fn judge_file(&self, machine: usize, path: &Path, body: &[u8], mode: u32) {
        self.judge_login(machine, path, body, mode);
        let private = mode & 0o077 == 0 && !path.to_string_lossy().contains("journal");
        if !private && self.tells(&String::from_utf8_lossy(body)) {
            self.violate(
                6,
                format!("a token's secret is in {} of {} (mode {mode:o})", path.display(), self.machines[machine].name),
            );
        }
        if self.machines[machine].foreign && path.starts_with("/etc/kubernetes") {
            self.violate(5, format!("{} is changed on a machine that somebody else set up", path.display()));
        }
    }

    /// At the end of a run: every file and object, against every secret (a file may be older than our knowledge).
    pub fn audit_secrets(&self) {
        for machine in &self.machines {
            let files: Vec<_> = machine.state.borrow().disk.items().map(|(p, i)| (p.clone(), i.clone())).collect();
            for (path, item) in files.iter().filter(|(path, _)| path.starts_with("/var/lib/kubestrap")) {
                self.judge_file(machine.index, path, &item.body, item.mode);
            }
        }
        let objects: Vec<_> = self.store.borrow().objects.iter().map(|(k, o)| (k.clone(), o.body.clone())).collect();
        for (key, body) in objects.iter().filter(|(key, _)| !key.ends_with("join/worker.json")) {
            self.judge_text(6, key, &String::from_utf8_lossy(body));
        }
    }
}
