//! Files: durable and atomic, as the port promises; but a kill in the middle of a write leaves what it leaves, disks
//! are full for a while, and slow ones hold up the agent.

use super::Desk;
use crate::faults::Fault;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::ports::{FileInfo, FileKind, Files};
use std::path::Path;
use std::time::Duration;

/// The longest that a disk in trouble takes for one write.
const SLOWEST: Duration = Duration::from_secs(8);

impl Desk {
    /// The gate decided that this write is cut: how much of it reaches the disk.
    fn cut(&self, path: &Path, body: &[u8]) -> Option<(usize, Failure)> {
        if !self.universe.machines[self.machine].torn.get() {
            return None;
        }
        let kept = self.universe.rng.below(body.len() as u64) as usize;
        Some((kept, Failure::new(Cause::Internal, format!("write {}", path.display()), "killed within")))
    }

    /// Whether the disk takes it, and when.
    fn space(&self, path: &Path) -> Outcome<()> {
        self.universe.judge_clone(self.machine, "writes a file");
        let (universe, machine) = (&self.universe, &self.universe.machines[self.machine]);
        let now = universe.timeline.now();
        if now < machine.full_until.get() {
            universe.count("write-on-full-disk");
            let why = "no space left on device (os error 28)";
            return Err(Failure::new(Cause::DiskFull, format!("write {}", path.display()), why));
        }
        if universe.strikes(Fault::SlowDisk) {
            // A synchronous call takes no virtual time: the agent is held up right after it instead.
            let until = now + universe.rng.between(Duration::from_millis(200), SLOWEST);
            machine.stalled_until.set(machine.stalled_until.get().max(until));
            universe.timeline.after(until - now, || {});
        }
        Ok(())
    }
}

impl Files for Desk {
    fn read(&self, path: &Path, limit: u64) -> Outcome<Option<Vec<u8>>> {
        let state = self.universe.machines[self.machine].state.borrow();
        let failed = |why: String| Err(Failure::new(Cause::FileAccess, format!("read {}", path.display()), why));
        match state.disk.get(path) {
            None if state.disk.is_folder(path) => failed("it is a folder".to_owned()),
            None => Ok(None),
            Some(item) if item.socket => failed("it is a socket".to_owned()),
            Some(item) if item.body.len() as u64 > limit => failed(format!("it is larger than {limit} bytes")),
            Some(item) => Ok(Some(item.body.clone())),
        }
    }

    fn stat(&self, path: &Path) -> Outcome<Option<FileInfo>> {
        let state = self.universe.machines[self.machine].state.borrow();
        let folder = FileInfo { kind: FileKind::Folder, mode: 0o700, uid: 0, len: 0 };
        Ok(match state.disk.get(path) {
            Some(item) => {
                let kind = if item.socket { FileKind::Other } else { FileKind::File };
                Some(FileInfo { kind, mode: item.mode, uid: 0, len: item.body.len() as u64 })
            }
            None => state.disk.is_folder(path).then_some(folder),
        })
    }

    fn list(&self, folder: &Path) -> Outcome<Vec<String>> {
        Ok(self.universe.machines[self.machine].state.borrow().disk.list(folder))
    }

    fn write(&self, path: &Path, body: &[u8], mode: u32) -> Outcome<()> {
        self.universe.judge_file(self.machine, path, body, mode);
        self.space(path)?;
        let cut = self.cut(path, body);
        let mut state = self.universe.machines[self.machine].state.borrow_mut();
        if let Some((kept, failure)) = cut {
            state.disk.put(path.with_extension("tmp-killed"), &body[..kept], mode);
            return Err(failure);
        }
        state.disk.put(path, body, mode);
        Ok(())
    }

    fn append(&self, path: &Path, body: &[u8], mode: u32) -> Outcome<()> {
        self.universe.judge_file(self.machine, path, body, mode);
        self.space(path)?;
        let cut = self.cut(path, body);
        let mut state = self.universe.machines[self.machine].state.borrow_mut();
        if let Some((kept, failure)) = cut {
            state.disk.append(path, &body[..kept], mode);
            return Err(failure);
        }
        state.disk.append(path, body, mode);
        Ok(())
    }

    fn remove(&self, path: &Path) -> Outcome<()> {
        self.universe.judge_removal(self.machine, path);
        self.universe.machines[self.machine].state.borrow_mut().disk.remove(path);
        Ok(())
    }
}
