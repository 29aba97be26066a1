use super::*;
use std::collections::BTreeMap;

/// Files with the facts that `stat` gives; a folder has no content.
#[derive(Default)]
struct Disk(BTreeMap<PathBuf, (FileInfo, Option<Vec<u8>>)>);

impl Disk {
    fn file(mut self, path: &str, mode: u32, uid: u32, text: &str) -> Self {
        let info = FileInfo { kind: FileKind::File, mode, uid, len: text.len() as u64 };
        self.0.insert(path.into(), (info, Some(text.as_bytes().to_vec())));
        self
    }

    fn other(mut self, path: &str, kind: FileKind, mode: u32) -> Self {
        self.0.insert(path.into(), (FileInfo { kind, mode, uid: 0, len: 0 }, None));
        self
    }
}

impl Files for Disk {
    fn read(&self, path: &Path, limit: u64) -> Outcome<Option<Vec<u8>>> {
        match self.0.get(path) {
            // Root reads everything; for another user, mode 0000 stands for what it may not read.
            Some((info, _)) if info.mode == 0 => Err(Failure::new(Cause::FileAccess, "read", "permission denied")),
            Some((_, Some(body))) if body.len() as u64 <= limit => Ok(Some(body.clone())),
            Some(_) => Err(Failure::new(Cause::FileAccess, "read", "not a regular file within the limit")),
            None => Ok(None),
        }
    }

    fn stat(&self, path: &Path) -> Outcome<Option<FileInfo>> {
        Ok(self.0.get(path).map(|(info, _)| info.clone()))
    }

    fn list(&self, folder: &Path) -> Outcome<Vec<String>> {
        let within = self.0.keys().filter(|path| path.parent() == Some(folder));
        Ok(within.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn write(&self, path: &Path, _body: &[u8], _mode: u32) -> Outcome<()> {
        panic!("configuration writes {}", path.display())
    }

    fn append(&self, path: &Path, _body: &[u8], _mode: u32) -> Outcome<()> {
        panic!("configuration appends to {}", path.display())
    }

    fn remove(&self, path: &Path) -> Outcome<()> {
        panic!("configuration removes {}", path.display())
    }
}

fn refused(disk: &Disk) -> Failure {
    from_files(disk, 1000, None).expect_err("refused")
}

#[test]
fn files_are_read_in_the_order_of_the_design() {
    let disk = Disk::default()
        .other(BAKED, FileKind::Folder, 0o755)
        .other("/etc/kubestrap", FileKind::Folder, 0o755)
        .other(MORE, FileKind::Folder, 0o755)
        .file("/etc/kubestrap/config.d/20-b.yml", 0o640, 1000, "d")
        .file("/etc/kubestrap/config.d/10-a.yaml", 0o600, 0, "c")
        .file("/etc/kubestrap/config.d/README", 0o644, 0, "no")
        .file("/etc/kubestrap/config.d/.hidden.yaml", 0o666, 0, "no")
        .file(MAIN, 0o644, 0, "b")
        .file("/usr/lib/kubestrap/config.d/image.yaml", 0o644, 0, "a");
    let layers = from_files(&disk, 1000, None).expect("all is well");
    let seen: Vec<String> = layers.iter().map(|layer| format!("{} {}", layer.name, layer.text)).collect();
    assert_eq!(
        seen,
        [
            "/usr/lib/kubestrap/config.d/image.yaml a",
            "/etc/kubestrap/config.yaml b",
            "/etc/kubestrap/config.d/10-a.yaml c",
            "/etc/kubestrap/config.d/20-b.yml d",
        ]
    );
    assert_eq!(from_files(&Disk::default(), 0, None), Ok(vec![]));
}

#[test]
fn a_given_file_replaces_all_others_and_must_exist() {
    let disk = Disk::default().file(MAIN, 0o666, 0, "b").file("/tmp/my.yaml", 0o644, 1000, "x");
    let only = |path: &str| from_files(&disk, 1000, Some(Path::new(path)));
    assert_eq!(only("/tmp/my.yaml"), Ok(vec![Layer::document("/tmp/my.yaml", "x")]));
    let missing = only("/tmp/other.yaml").expect_err("absent");
    assert_eq!(missing.cause, Cause::Configuration);
    assert!(missing.attempted.contains("/tmp/other.yaml"), "{missing}");
}

#[test]
fn what_others_can_change_is_refused() {
    for (mode, uid) in [(0o666, 0), (0o664, 0), (0o646, 0), (0o644, 1001)] {
        let failure = refused(&Disk::default().file(MAIN, mode, uid, "cluster: x"));
        assert_eq!(failure.cause, Cause::UnsafeFile, "{failure}");
        assert!(failure.to_string().contains(MAIN), "{failure}");
    }
    let open_folder =
        Disk::default().other(MORE, FileKind::Folder, 0o777).file("/etc/kubestrap/config.d/a.yaml", 0o644, 0, "x");
    assert_eq!(refused(&open_folder).cause, Cause::UnsafeFile);
    let open_parent = Disk::default().other("/etc/kubestrap", FileKind::Folder, 0o775).file(MAIN, 0o644, 0, "x");
    assert_eq!(refused(&open_parent).cause, Cause::UnsafeFile);
    for kind in [FileKind::Link, FileKind::Other, FileKind::Folder] {
        assert_eq!(refused(&Disk::default().other(MAIN, kind, 0o755)).cause, Cause::UnsafeFile, "{kind:?}");
    }
}

#[test]
fn what_cannot_be_read_is_said_and_not_skipped() {
    let unreadable = refused(&Disk::default().file(MAIN, 0, 0, "x"));
    assert_eq!(unreadable.cause, Cause::FileAccess);
    let huge = refused(&Disk::default().file(MAIN, 0o644, 0, &"#".repeat(1024 * 1024 + 1)));
    assert!(huge.cause == Cause::Configuration && huge.detail.contains("1048577"), "{huge}");
    let mut binary = Disk::default().file(MAIN, 0o644, 0, "x");
    if let Some((_, body)) = binary.0.get_mut(Path::new(MAIN)) {
        *body = Some(vec![0xff, 0xfe]);
    }
    assert!(refused(&binary).detail.contains("UTF-8"));
}
