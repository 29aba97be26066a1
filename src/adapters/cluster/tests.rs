use super::*;
use std::net::TcpListener;

fn get(access: Access) -> ApiRequest {
    ApiRequest { access, method: "GET", path: "/healthz?verbose".to_owned(), body: None }
}

fn call(api: &Api, request: ApiRequest) -> Outcome<ApiAnswer> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(api.call(request))
}

/// Answers one request with these bytes; gives what was asked.
fn serve_once(answer: Vec<u8>) -> (String, std::thread::JoinHandle<String>) {
    use std::io::{Read, Write};
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address").to_string();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        let mut request = vec![0; 4096];
        let read = stream.read(&mut request).expect("read");
        // A client that has read enough hangs up.
        let _ = stream.write_all(&answer);
        String::from_utf8_lossy(&request[..read]).into_owned()
    });
    (address, server)
}

/// A CA that rustls takes; made for this test, its key was thrown away.
fn kubeconfig(root: &Path, server: &str, user: &str) {
    let ca = root.join("ca.pem");
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=ca"])
        .args(["-keyout", "/dev/null", "-out"])
        .arg(&ca)
        .output()
        .expect("openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let text = format!(
        "current-context: c\nclusters: [{{name: k, cluster: {{server: \"{server}\", certificate-authority: /ca.pem}}}}]\n\
         contexts: [{{name: c, context: {{cluster: k, user: u}}}}]\nusers: [{{name: u, user: {user}}}]\n"
    );
    std::fs::write(root.join("admin.conf"), text).expect("write");
}

fn admin() -> Access {
    Access::Kubeconfig(PathBuf::from("/admin.conf"))
}

#[test]
fn a_kubeconfig_is_read_again_when_it_changed() {
    let root = tempfile::tempdir().expect("tempdir");
    let api = Api::new(Names::default(), root.path());
    let missing = call(&api, get(admin())).expect_err("no file");
    assert_eq!(missing.cause, Cause::ApiUnavailable);
    for (token, body) in [("one", "ok"), ("second", "fine")] {
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let (address, server) = serve_once(answer.into_bytes());
        kubeconfig(root.path(), &format!("http://{address}"), &format!("{{token: {token}}}"));
        let answer = call(&api, get(admin())).expect("an answer");
        assert_eq!((answer.status, answer.body), (200, body.as_bytes().to_vec()));
        let request = server.join().expect("server");
        assert!(request.starts_with("GET /healthz?verbose HTTP/1.1"), "{request}");
        assert!(request.contains(&format!("Bearer {token}\r\n")), "{request}");
    }
}

#[test]
fn an_answer_has_a_bound() {
    let root = tempfile::tempdir().expect("tempdir");
    let mut answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
    answer.resize(MAX_BODY + 100_000, b'x');
    let (address, server) = serve_once(answer);
    kubeconfig(root.path(), &format!("http://{address}"), "{token: t}");
    let error = call(&Api::new(Names::default(), root.path()), get(admin())).expect_err("too large");
    assert!(error.detail.contains("length limit exceeded"), "{error}");
    server.join().expect("server");
}

#[test]
fn what_is_not_there_has_a_cause_and_secrets_stay_out() {
    let root = tempfile::tempdir().expect("tempdir");
    let api = Api::new(Names::default(), root.path());
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("address");
    kubeconfig(root.path(), &format!("https://{closed}"), "{token: hunter2}");
    let error = call(&api, get(admin())).expect_err("nobody listens");
    assert_eq!(error.cause, Cause::ApiUnavailable);
    assert!(!error.to_string().contains("hunter2") && !error.to_string().contains("verbose"), "{error}");
    std::fs::write(root.path().join("admin.conf"), "half of a fi").expect("write");
    assert_eq!(call(&api, get(admin())).map_err(|f| f.cause), Err(Cause::ApiUnavailable));
    // Not TLS: neither mode takes it for an answer.
    let (address, server) = serve_once(b"HTTP/1.1 200 OK\r\n\r\n".to_vec());
    let endpoint = kubestrap_core::model::names::Endpoint::parse(&address).expect("endpoint");
    let error = call(&api, get(Access::Unverified(endpoint))).expect_err("plain text");
    assert_eq!(error.cause, Cause::Tls, "{error}");
    server.join().expect("server");
}

#[test]
fn a_server_with_another_ca_is_not_spoken_to_unless_unverified() {
    let root = tempfile::tempdir().expect("tempdir");
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("address").port();
    let key = root.path().join("key.pem");
    let certificate = root.path().join("server.pem");
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=x"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output();
    assert!(made.expect("openssl").status.success());
    let mut server = std::process::Command::new("openssl")
        .args(["s_server", "-quiet", "-www", "-port", &port.to_string(), "-key"])
        .arg(&key)
        .arg("-cert")
        .arg(&certificate)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("openssl");
    for _ in 0..200 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let api = Api::new(Names::default(), root.path());
    kubeconfig(root.path(), &format!("https://127.0.0.1:{port}"), "{token: t}");
    let verified = call(&api, get(admin()));
    let endpoint = kubestrap_core::model::names::Endpoint::parse(&format!("127.0.0.1:{port}")).expect("endpoint");
    let unverified = call(&api, get(Access::Unverified(endpoint)));
    server.kill().and_then(|()| server.wait()).expect("kill");
    assert_eq!(verified.map_err(|failure| failure.cause), Err(Cause::Tls));
    assert!(unverified.is_ok(), "{unverified:?}");
}
