//! Memory stays bounded, whatever is sent without an end. Each case runs the program with a limit on its memory, which
//! ends it as soon as it keeps what it should not, and asserts that what was refused is named.

use crate::peer::{Peer, Reply};
use crate::process::{Agent, Finished, PATIENCE, finish};
use crate::world::{Machine, World};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// What a peer answers to a request.
type Answer = fn(&str) -> Reply;
/// The same, with something that it remembers.
type BoxedAnswer = Box<dyn Fn(&str) -> Reply + Send + Sync>;

/// For all that is not a file: heap and stacks of all threads, in KiB. An agent at work over S3 needs some 20 MiB.
const MEMORY_KIB: u32 = 64 * 1024;
/// A file that nobody could read into memory.
const HUGE: u64 = 64 << 30;

/// The same command, that must do with so much memory (setrlimit(2), `RLIMIT_DATA`): more is not given, and the
/// allocation ends the process with SIGABRT. The programs that it starts inherit the limit.
fn confined(command: &Command, kib: u32) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -d {kib} && exec \"$0\" \"$@\"")]).arg(command.get_program());
    shell.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

/// The program on this machine, with little memory, and with credentials for whoever asks.
fn command(machine: &Machine, arguments: &[&str]) -> Command {
    let mut command = machine.command(arguments);
    command.env("AWS_ACCESS_KEY_ID", "AKIATEST").env("AWS_SECRET_ACCESS_KEY", "secret");
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    confined(&command, MEMORY_KIB)
}

fn run(machine: &Machine, arguments: &[&str]) -> Finished {
    finish(&mut command(machine, arguments))
}

/// A file of 64 GiB that takes no space.
fn huge_file(path: &Path) {
    std::fs::create_dir_all(path.parent().expect("folder")).expect("mkdir");
    std::fs::File::create(path).and_then(|file| file.set_len(HUGE)).expect("a sparse file");
}

/// A link to a file that is longer.
fn zero_device(path: &Path) {
    symlink("/dev/zero", path).expect("link");
}

#[test]
fn the_limit_of_these_tests_is_one() {
    let world = World::new();
    let machine = world.master("m1");
    finish(&mut confined(&machine.command(&["config", "check"]), MEMORY_KIB)).expect(0);
    let ended = finish(&mut confined(&machine.command(&["config", "check"]), 512));
    assert_ne!(ended.code, Some(0), "512 KiB are enough: the limit is none");
    // What keeps everything is ended by it.
    let mut hoarder = Command::new("python3");
    hoarder.args(["-c", "b = b'x' * (100 << 20)"]);
    assert_ne!(finish(&mut confined(&hoarder, MEMORY_KIB)).code, Some(0), "100 MiB were given");
}

/// A machine whose store is this server.
fn over_s3(world: &World, peer: &Peer, role: &str) -> Machine {
    let more = if role == "master" { "control_plane_endpoint: 127.0.0.1:6443\n" } else { "" };
    let text = format!(
        "cluster: prod\nrole: {role}\nstore: s3://bucket/k8s\ns3: {{ endpoint: '{}', region: eu-central-1 }}\n\
         identity: host\nnode: {{ name: {role}, address: 192.0.2.10 }}\n{more}",
        peer.url()
    );
    world.bare_machine(role, &text)
}

#[test]
fn answers_of_s3_without_an_end() {
    for status in ["200 OK", "403 Forbidden", "404 Not Found", "503 Slow Down"] {
        let world = World::new();
        let peer =
            Peer::start(move |_| Reply::endless(status, "etag: \"x\"\r\ncontent-type: application/xml\r\n", "x"));
        for role in ["master", "worker"] {
            let machine = over_s3(&world, &peer, role);
            let asked = peer.requests();
            let mut agent = Agent::start(&mut command(&machine, &["run"]));
            agent.until(&format!("it has asked three times ({status})"), || peer.requests() >= asked + 3);
            agent.until_logged("[");
            assert!(machine.events().is_empty());
            agent.terminate();
            let said = agent.finished(PATIENCE).expect(0).said();
            assert!(said.contains("bucket/k8s"), "{status}: the object is not named:\n{said}");
            // Looking is no less careful than running.
            run(&machine, &["status", "--cluster"]).says(&["bucket"]);
            run(&machine, &["doctor"]).expect(21);
        }
        // Hung up on, and not read to a time limit: what was taken is a few answers and the sockets' buffers.
        let each = peer.sent() / peer.requests();
        assert!(each < 32 << 20, "{status}: {each} bytes were taken of an answer");
    }
}

/// A page of a listing that is never the last: its keys come after what was asked for.
fn one_more_page(request: &str) -> String {
    let after = request.split(['&', '?', ' ']).find_map(|part| part.strip_prefix("start-after="));
    let number = after.and_then(|key| key.rsplit('n').next()?.parse::<u64>().ok()).unwrap_or_default();
    let key = |n: u64| {
        let pad = "p".repeat(900);
        format!("<Contents><Key>k8s/prod/nodes/{pad}n{n:012}</Key><Size>1</Size></Contents>")
    };
    let keys: String = (number + 1..number + 1001).map(key).collect();
    format!("<ListBucketResult><IsTruncated>true</IsTruncated><KeyCount>1000</KeyCount>{keys}</ListBucketResult>")
}

#[test]
fn a_listing_without_an_end() {
    let world = World::new();
    let peer = Peer::start(|request| {
        if request.starts_with("GET /bucket/k8s/prod/") {
            let body = "<Error><Code>NoSuchKey</Code><Message>none</Message></Error>";
            return Reply::whole("404 Not Found", "content-type: application/xml\r\n", body);
        }
        Reply::whole("200 OK", "content-type: application/xml\r\n", &one_more_page(request))
    });
    let machine = over_s3(&world, &peer, "worker");
    run(&machine, &["status", "--cluster"]).expect(12).says(&[
        "object-rejected",
        "list prod/nodes/",
        "a cluster has some for each of its nodes",
    ]);
    assert!(peer.requests() < 100, "{} pages were asked for", peer.requests());
}

#[test]
fn objects_without_an_end_in_a_folder() {
    for (make, cause) in [(huge_file as fn(&Path), "object-rejected"), (zero_device, "it is a symbolic link")] {
        let (world, _master) = World::established();
        let place = world.store_path("prod/join/worker.json");
        std::fs::remove_file(&place).expect("remove");
        make(&place);
        let worker = world.worker("w1");
        let mut agent = Agent::start(&mut command(&worker, &["run"]));
        let log = agent.news();
        agent.until("it refuses the object", || log().contains(cause) && log().contains("join/worker.json"));
        assert!(worker.events().is_empty());
    }
}

#[test]
fn answers_of_the_metadata_service_without_an_end() {
    const TOKEN: &str = "x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n";
    let answers: [(&str, Answer); 3] = [
        ("api/token", |_| Reply::endless("200 OK", TOKEN, "x")),
        ("user-data", |request| match request.starts_with("PUT") {
            true => Reply::whole("200 OK", TOKEN, "token"),
            false => Reply::endless("200 OK", "", "\u{1f}"),
        }),
        ("api/token", |_| Reply::endless_head("x-more: of the same\r\n")),
    ];
    for (path, answer) in answers {
        let world = World::new();
        let peer = Peer::start(answer);
        let text = format!(
            "cluster: prod\nrole: worker\nstore: file://{}\nidentity: ec2\naws: {{ metadata_endpoint: '{}', ecr_endpoint: 'http://127.0.0.1:9' }}\n",
            world.path("store").display(),
            peer.url()
        );
        let machine = world.bare_machine("w1", &text);
        let mut agent = Agent::start(&mut command(&machine, &["run"]));
        agent.until(&format!("it has asked four times ({path})"), || peer.requests() >= 4);
        assert!(machine.events().is_empty());
        agent.terminate();
        agent.finished(PATIENCE).expect(0);
        let each = peer.sent() / peer.requests();
        assert!(each < 32 << 20, "{path}: {each} bytes were taken of an answer");
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("gzip")
}

/// User-data with these parts of ours, each as it is.
fn parts(count: usize, encoding: &str, body: &str) -> Vec<u8> {
    let part =
        format!("--b\nContent-Type: application/x-kubestrap+yaml\nContent-Transfer-Encoding: {encoding}\n\n{body}\n");
    format!("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n{}--b--\n", part.repeat(count))
        .into_bytes()
}

/// A list of lists of lists, by aliases: some 11,000 values in 200 bytes.
fn laughter() -> String {
    let ten = |of: &str| [of; 10].join(",");
    format!("a: &a [{}]\nb: &b [{}]\nc: &c [{}]\nd: [{}]\n", ten("1"), ten("*a"), ten("*b"), ten("*c"))
}

#[test]
fn user_data_that_grows_when_it_is_read() {
    use base64::Engine;
    let bomb = base64::engine::general_purpose::STANDARD.encode(gzip(&vec![b'#'; 1 << 20]));
    let tiny = format!("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n{}", "--b\n\n".repeat(200_000));
    let cases = [
        ("gzip", gzip(&vec![b'#'; 14 << 20]), "cannot be decompressed to at most 1 MiB"),
        ("gzip in gzip", gzip(&parts(256, "base64", &bomb)), "larger than 1 MiB"),
        ("parts", gzip(tiny.as_bytes()), "user-data"),
        ("aliases", gzip(&parts(256, "7bit", &laughter())), "user-data"),
    ];
    let world = World::new();
    let machine = world.worker("w1");
    for (name, body, said) in cases {
        assert!(body.len() <= 16 << 10, "{name} has {} bytes: EC2 would not take it", body.len());
        let file = world.path("user-data");
        std::fs::write(&file, body).expect("write");
        let file = file.display().to_string();
        let ended = run(&machine, &["config", "check", "--user-data", &file]);
        assert_eq!(ended.code, Some(10), "{name}: {}", ended.said().chars().take(2000).collect::<String>());
        ended.says(&[said]);
    }
}

#[test]
fn configuration_without_an_end() {
    let main = "/etc/kubestrap/config.yaml";
    for (make, code, said) in
        [(huge_file as fn(&Path), 10, "at most 1048576 are read"), (zero_device, 11, "it is a symbolic link")]
    {
        let world = World::new();
        let machine = world.worker("w1");
        std::fs::remove_file(machine.path(main)).expect("remove");
        make(&machine.path(main));
        for verb in [&["run"] as &[&str], &["config", "check"], &["status"]] {
            run(&machine, verb).expect(code).says(&[said, main]);
        }
        assert!(machine.events().is_empty());
    }
}

#[test]
fn answers_of_the_api_server_without_an_end() {
    let (_world, master) = World::established();
    let long = format!("{{\"kind\":\"Status\",\"message\":\"{}\"}}", "no ".repeat(1_000_000));
    let answers: [BoxedAnswer; 4] = [
        Box::new(|_| Reply::endless("200 OK", "", "x")),
        Box::new(|_| Reply::endless("500 Internal Server Error", "", "x")),
        Box::new(|_| Reply::endless_head("x-more: of the same\r\n")),
        Box::new(move |_| Reply::whole("500 Internal Server Error", "", &long)),
    ];
    for answer in answers {
        let peer = Peer::start(answer);
        for conf in ["/etc/kubernetes/admin.conf", "/etc/kubernetes/kubelet.conf"] {
            let text = master.read(conf);
            let server = text.lines().find_map(|line| line.trim().strip_prefix("server: ")).expect("a server");
            master.write(conf, &text.replace(server, &peer.url()));
        }
        let said = run(&master, &["status"]).expect(0).says(&["not known"]).said();
        assert!(said.len() < 10_000, "{} bytes were said", said.len());
        let mut agent = Agent::start(&mut command(&master, &["run"]));
        let before = peer.requests();
        agent.until("it has asked three times", || peer.requests() >= before + 3);
        agent.until_logged("api-unavailable");
        assert!(agent.log().lines().all(|line| line.len() < 20_000), "the answer fills the log");
        agent.terminate();
        agent.finished(PATIENCE).expect(0);
    }
    let journal = std::fs::metadata(master.path("/var/lib/kubestrap/journal.jsonl")).expect("a journal").len();
    assert!(journal < 256 << 10, "the answers fill the journal: {journal} bytes");
}

#[test]
fn a_tool_that_never_stops_talking() {
    for (stream, code, said) in [("", 0, "is not a version"), (">&2", 1, "exit code 1")] {
        let world = World::new();
        let master = world.master("m1");
        master.tool("kubeadm", &format!("head -c 200000000 /dev/zero | tr '\\0' x {stream}; exit {code}"));
        let mut agent = Agent::start(&mut command(&master, &["run"]));
        agent.until_logged(said);
        assert!(agent.log().lines().all(|line| line.len() < 20_000), "the tool fills the log");
        assert!(world.object("cluster.json").is_none());
    }
}

#[test]
fn a_kubeadm_that_writes_too_much_is_told_with_its_last_words_and_fills_no_disk() {
    let (world, master) = World::established();
    let worker = world.worker("w1");
    let real = crate::process::programs().join("kubeadm");
    let noise = "head -c 100000000 /dev/zero | tr '\\0' x; sleep 1; echo; echo these are the last words; exit 1";
    worker.tool("kubeadm", &format!("case \" $* \" in *' join '*) {noise} ;; esac\nexec {} \"$@\"", real.display()));
    let mut agent = Agent::start(&mut command(&worker, &["run"]));
    agent.until("the join is in the report as it failed", || {
        worker.report(&world).is_some_and(|report| report["error"]["cause"] == "tool-failed")
    });
    agent.until_logged("these are the last words");
    assert!(agent.log().lines().all(|line| line.len() < 20_000), "kubeadm fills the log");
    let size = |path: &str| std::fs::metadata(worker.path(path)).map_or(0, |data| data.len());
    assert!(size("/var/lib/kubestrap/journal.jsonl") < 64 << 10, "kubeadm fills the journal");
    agent.terminate();
    agent.finished(PATIENCE).expect(0);
    drop(master);
}

#[test]
fn scrapers_that_never_stop_asking() {
    let (_world, master) = World::established();
    let address = format!("127.0.0.1:{}", crate::world::free_port());
    master.configure(&format!("metrics: {{ listen: '{address}' }}\n"));
    let mut agent = Agent::start(&mut command(&master, &["run"]));
    agent.until("it listens", || std::net::TcpStream::connect(&address).is_ok());
    for start in [
        "GET /metrics HTTP/1.1\r\nhost: x\r\nx-endless: ",
        "GET /metrics",
        "POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nfffffff0\r\n",
    ] {
        let mut stream = std::net::TcpStream::connect(&address).expect("connect");
        // Hung up on, or not read; whatever is taken is not kept.
        stream.set_write_timeout(Some(std::time::Duration::from_secs(2))).expect("timeout");
        let mut sent = stream.write(start.as_bytes());
        for _ in 0..4096 {
            sent = sent.and_then(|_| stream.write(&[b'x'; 65536]));
        }
        drop(stream);
        assert!(agent.runs(), "{start:?} ended the agent:\n{}", agent.log());
        assert_eq!(crate::http::request(&address, "GET /metrics").0, 200, "after {start:?}");
    }
}
