//! Downloads of `install` behind a proxy: absolute-form for http, a tunnel for https, and past it for what NO_PROXY names.

use crate::http::Server;
use crate::install::{VERSION, arch, bundle, digest, released};
use crate::process::{Finished, finish};
use crate::world::{Machine, World};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Released files by their names, and checksums of them as a configuration has them.
struct Files(BTreeMap<String, Vec<u8>>, String);

impl Files {
    fn new(world: &World) -> Files {
        let folder = world.path("bundle");
        std::fs::create_dir(&folder).expect("mkdir");
        bundle(&folder, VERSION);
        let (mut files, mut checksums) = (BTreeMap::new(), String::new());
        for (component, version, file, _) in released(VERSION) {
            let path = folder.join("files").join(component).join(&version).join(arch()).join(&file);
            let body = std::fs::read(path).expect("read");
            checksums += &format!("    {component}: {{ \"{version}\": {{ {}: {} }} }}\n", arch(), digest(&body));
            files.insert(file, body);
        }
        Files(files, checksums)
    }
}

/// A proxy that is a mirror too: it answers every GET with the file of that name, and connects whom it is asked to.
struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn start(files: &Files) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let (address, asked) = (listener.local_addr().expect("address"), Arc::default());
        let (files, lines) = (files.0.clone(), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (files, lines) = (files.clone(), Arc::clone(&lines));
                // Whoever goes away has seen enough.
                std::thread::spawn(move || drop(answer(stream, &files, &lines)));
            }
        });
        Proxy { address, asked }
    }

    /// The first lines of all requests.
    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("lines").clone()
    }
}

fn answer(mut stream: TcpStream, files: &BTreeMap<String, Vec<u8>>, lines: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    lines.lock().expect("lines").push(line.trim().to_owned());
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let target = line.split(' ').nth(1).unwrap_or_default();
    if line.starts_with("CONNECT ") {
        let mut server = TcpStream::connect(target)?;
        stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
        let (mut to, mut back) = (server.try_clone()?, stream.try_clone()?);
        std::thread::spawn(move || {
            std::io::copy(&mut reader, &mut to).and_then(|_| to.shutdown(std::net::Shutdown::Write))
        });
        return std::io::copy(&mut server, &mut back).map(drop);
    }
    match files.get(target.rsplit('/').next().unwrap_or_default()) {
        Some(body) => {
            write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len())?;
            stream.write_all(body)
        }
        None => stream.write_all(b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"),
    }
}

fn machine(world: &World, files: &Files, mirror: &str) -> Machine {
    let machine = world.worker("w1");
    let versions =
        format!("kubernetes: {VERSION}, containerd: 2.1.901, runc: 1.3.901, cni_plugins: 1.7.901, crictl: 1.36.901");
    let checksums = &files.1;
    machine
        .configure(&format!("install:\n  mirror: {mirror}\n  versions: {{ {versions} }}\n  checksums:\n{checksums}"));
    machine
}

fn install(machine: &Machine, proxy: &Proxy, scheme: &str, but: &str, roots: &Path) -> Finished {
    let mut command = machine.command(&["install"]);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command.env(format!("{scheme}_PROXY"), format!("http://{}", proxy.address)).env("NO_PROXY", but);
    finish(command.env("SSL_CERT_FILE", roots))
}

#[test]
fn http_goes_through_the_proxy_which_looks_names_up() {
    let world = World::new();
    let files = Files::new(&world);
    let proxy = Proxy::start(&files);
    let machine = machine(&world, &files, "http://mirror.example.invalid/k8s");
    install(&machine, &proxy, "HTTP", "", Path::new("/nonexistent")).expect(0).says(&["content sha256:"]);
    assert!(machine.has("/usr/local/bin/kubelet"));
    let asked = proxy.asked();
    assert_eq!(asked.len(), released(VERSION).len(), "{asked:?}");
    assert!(asked.iter().all(|line| line.starts_with("GET http://mirror.example.invalid/k8s/")), "{asked:?}");
}

#[test]
fn what_no_proxy_names_is_asked_itself() {
    let world = World::new();
    let files = Files::new(&world);
    let (proxy, mirror) = (Proxy::start(&files), Proxy::start(&files));
    let machine = machine(&world, &files, &format!("http://{}/k8s", mirror.address));
    install(&machine, &proxy, "HTTP", "other.example,127.0.0.1", Path::new("/nonexistent")).expect(0);
    assert_eq!(proxy.asked(), [""; 0]);
    assert!(mirror.asked().iter().all(|line| line.starts_with("GET /k8s/")), "{:?}", mirror.asked());
}

#[test]
fn https_goes_through_a_tunnel_and_ends_at_the_server() {
    let world = World::new();
    let files = Files::new(&world);
    let roots = world.path("roots.pem");
    let (proxy, server) = (Proxy::start(&files), Server::s3_tls("good", &roots));
    let machine = machine(&world, &files, &format!("https://{}/bucket", server.address));
    // It has none of the files: that its answer is understood says that TLS was spoken with it, and verified.
    install(&machine, &proxy, "HTTPS", "", &roots).says(&["download-missing", "404"]);
    let asked = proxy.asked();
    let connect = format!("CONNECT {} HTTP/1.1", server.address);
    assert!(!asked.is_empty() && asked.iter().all(|line| *line == connect), "{asked:?}");

    install(&machine, &proxy, "HTTPS", "127.0.0.1", &roots).says(&["download-missing", "404"]);
    assert_eq!(proxy.asked().len(), asked.len(), "past the proxy");
}
