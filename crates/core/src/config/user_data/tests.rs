use super::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;

const DOCUMENT: &str = "cluster: prod\nrole: worker\nstore: s3://acme-clusters/k8s\n";

/// What `cloud-init devel make-mime -a boot.sh:x-shellscript -a kubestrap.yaml:x-kubestrap+yaml -a cloud.cfg:cloud-config`
/// writes.
const MADE_BY_CLOUD_INIT: &str = "\
Content-Type: multipart/mixed; boundary=\"===============2586843163246577539==\"
MIME-Version: 1.0

--===============2586843163246577539==
Content-Type: text/x-shellscript; charset=\"utf-8\"
MIME-Version: 1.0
Content-Transfer-Encoding: base64
Content-Disposition: attachment; filename=\"boot.sh\"

IyEvYmluL3NoCmVjaG8gaGVsbG8K

--===============2586843163246577539==
Content-Type: text/x-kubestrap+yaml; charset=\"utf-8\"
MIME-Version: 1.0
Content-Transfer-Encoding: base64
Content-Disposition: attachment; filename=\"kubestrap.yaml\"

Y2x1c3RlcjogcHJvZApyb2xlOiB3b3JrZXIKc3RvcmU6IHMzOi8vYWNtZS1jbHVzdGVycy9rOHMK

--===============2586843163246577539==
Content-Type: text/cloud-config; charset=\"utf-8\"
MIME-Version: 1.0
Content-Transfer-Encoding: base64
Content-Disposition: attachment; filename=\"cloud.cfg\"

I2Nsb3VkLWNvbmZpZwpwYWNrYWdlczogW2Nocm9ueV0K

--===============2586843163246577539==--
";

/// Two parts of ours as Terraform's cloudinit_config writes them: 7bit, quoted-printable, base64 of gzip.
fn several_parts() -> String {
    let packed = STANDARD.encode(gzip(b"node:\n  labels: { team: web }\n"));
    format!(
        "Content-Type: multipart/mixed; boundary=\"MIMEBOUNDARY\"\r\nMIME-Version: 1.0\r\n\r\n\
         --MIMEBOUNDARY\r\nContent-Type: application/x-kubestrap+yaml\r\nMime-Version: 1.0\r\n\r\n\
         cluster: prod\r\nrole: worker\r\n\r\n\
         --MIMEBOUNDARY\r\nContent-Type: Application/X-Kubestrap+YAML\r\n\
         Content-Transfer-Encoding: quoted-printable\r\n\r\n\
         store: =\r\ns3://acme-clusters/k8s=0Arole: master\r\n\
         --MIMEBOUNDARY\r\nContent-Type: application/x-kubestrap+yaml\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{packed}\r\n\
         --MIMEBOUNDARY--\r\n"
    )
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

fn ours(bytes: &[u8]) -> Vec<Layer> {
    match read(bytes) {
        Ok(UserData::Ours(layers)) => layers,
        other => panic!("not ours: {other:?}"),
    }
}

#[test]
fn a_whole_document_is_ours_with_the_marker_or_with_our_keys() {
    for text in [
        DOCUMENT.to_owned(),
        "#kubestrap\nrole: worker\n".to_owned(),
        "#kubestrap \r\nrole: worker\r\n".to_owned(),
        "#kubestrap\nnot: [valid".to_owned(),
        "# our cluster\ncluster: prod\nstore: file:///srv\n".to_owned(),
        "{\"cluster\": \"prod\", \"role\": \"worker\"}".to_owned(),
    ] {
        assert_eq!(ours(text.as_bytes()), [Layer::document("user-data", text.clone())], "{text}");
        assert_eq!(ours(&gzip(text.as_bytes())), [Layer::document("user-data", text.clone())], "{text} (gzip)");
    }
}

#[test]
fn what_is_somebody_elses_is_left_alone() {
    for other in [
        "#!/bin/sh\ncluster: prod\n",
        "#cloud-config\ncluster: x\nrole: y\n",
        "#cloud-boothook\n#!/bin/sh\n",
        "#include\nhttps://example.com/\n",
        "## template: jinja\n#cloud-config\n",
        "hello",
        "- a\n- b\n",
        "cluster: prod\n",
        "role: worker\nstore: s3://x\n",
        "cluster: [\nrole: y\n",
        "#kubestrap-else\nrole: worker\n",
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/x-shellscript\n\n#!/bin/sh\n--b--\n",
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\ntruncated",
    ] {
        assert!(matches!(read(other.as_bytes()), Ok(UserData::Other(_))), "{other:?}: {:?}", read(other.as_bytes()));
    }
    assert!(matches!(read(b"\xff\xfe\x00cluster"), Ok(UserData::Other(why)) if why.contains("UTF-8")));
    assert!(matches!(read(&gzip(DOCUMENT.as_bytes())[..20]), Ok(UserData::Other(why)) if why.contains("gzip")));
    for empty in ["", " \n"] {
        assert_eq!(read(empty.as_bytes()), Ok(UserData::Empty));
    }
}

#[test]
fn our_part_is_found_in_what_cloud_init_writes() {
    let expected = [Layer::document("user-data(kubestrap.yaml)", DOCUMENT)];
    assert_eq!(ours(MADE_BY_CLOUD_INIT.as_bytes()), expected);
    assert_eq!(ours(&gzip(MADE_BY_CLOUD_INIT.as_bytes())), expected);
    assert_eq!(ours(MADE_BY_CLOUD_INIT.replace('\n', "\r\n").as_bytes()), expected);
}

#[test]
fn several_parts_are_merged_in_their_order_whatever_their_encoding() {
    let layers = ours(several_parts().as_bytes());
    assert_eq!(layers.len(), 3, "{layers:?}");
    assert_eq!(layers[2].text, "node:\n  labels: { team: web }\n");
    let shown = crate::config::load(layers).expect_err("a master without an endpoint");
    assert!(shown.len() == 1 && shown[0].message.contains("control_plane_endpoint"), "{shown:?}");
    assert_eq!(shown[0].place.as_ref().map(ToString::to_string).as_deref(), Some("user-data(part 2):2:7"));
}

#[test]
fn a_part_of_ours_that_cannot_be_read_is_a_problem_and_not_left_alone() {
    let with_body = |body: &[u8]| {
        let head = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\
                    Content-Type: application/x-kubestrap+yaml\nContent-Transfer-Encoding: base64\n\n";
        format!("{head}{}\n--b--\n", STANDARD.encode(body))
    };
    let bomb = gzip(&vec![b'#'; 2 * 1024 * 1024]);
    for (body, why) in
        [(&b"\xff\xfe"[..], "not UTF-8"), (bomb.as_slice(), "1 MiB"), (&gzip(b"role: worker")[..15], "decompressed")]
    {
        let problem = read(with_body(body).as_bytes()).expect_err(why);
        assert!(problem.to_string().starts_with("user-data(part 1): ") && problem.message.contains(why), "{problem}");
    }
    assert!(matches!(read(&bomb), Ok(UserData::Other(why)) if why.contains("1 MiB")));
    let part = with_body(&gzip(&vec![b'#'; 700_000]));
    let (head, first) = part.split_once("--b\n").expect("a part");
    let both = format!("{head}--b\n{}--b\n{first}", first.replace("--b--\n", ""));
    let problem = read(both.as_bytes()).expect_err("both");
    assert!(problem.to_string().starts_with("user-data(part 2): with this part"), "{problem}");
}
