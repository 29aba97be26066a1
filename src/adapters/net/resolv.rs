//! What `/etc/resolv.conf` says, read as getaddrinfo reads it: a static binary finds the same names as the programs
//! beside it. The parser is hickory's; where it differs from resolv.conf(5), this file mends it.

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::parse_resolv_conf;
use std::io::ErrorKind;
use std::time::Duration;

/// Where it is.
pub(super) const FILE: &str = "/etc/resolv.conf";
/// A name that is missing now may be published in a moment (the API server's, at the first boot of a cluster), and
/// zones allow resolvers to remember its absence for hours.
const REMEMBER_ABSENCE: Duration = Duration::from_secs(2);
/// Asked when no server is named, as resolv.conf(5) has it.
const NO_SERVERS: &str = "\nnameserver 127.0.0.1\n";

/// The resolver for this machine as it is configured now. A file that is missing is as good as an empty one.
///
/// # Errors
/// Why there is none, with the file.
pub(super) fn resolver() -> Result<TokioResolver, String> {
    let text = match std::fs::read_to_string(FILE) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        other => other.map_err(|error| format!("{FILE}: {error}"))?,
    };
    let (config, options) = configuration(&text)?;
    build(config, options)
}

fn build(config: ResolverConfig, options: ResolverOpts) -> Result<TokioResolver, String> {
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    builder.build().map_err(|error| error.to_string())
}

/// Servers, search list and options. Two things are ours: without servers the local one is asked (hickory refuses the
/// file, and then even names of the hosts file would not be found), and the domain of the machine's own name counts
/// only when neither `search` nor `domain` is there (hickory asks for it first, even then: another machine may answer).
fn configuration(text: &str) -> Result<(ResolverConfig, ResolverOpts), String> {
    let names_servers = text.lines().any(|line| line.split_whitespace().next() == Some("nameserver"));
    let servers = if names_servers { "" } else { NO_SERVERS };
    let (config, mut options) =
        parse_resolv_conf(format!("{text}{servers}")).map_err(|error| format!("{FILE}: {error}"))?;
    let (domain, search, servers) = config.into_parts();
    let domain = domain.filter(|_| search.is_empty());
    options.negative_max_ttl = Some(REMEMBER_ABSENCE);
    Ok((ResolverConfig::from_parts(domain, search, servers), options))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
    use hickory_resolver::proto::rr::{RData, Record, RecordType, rdata};
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::{Arc, Mutex};
    use tokio::net::UdpSocket;

    const FOUND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

    /// Answers A queries for one name, NXDOMAIN to all others; remembers the names that it was asked for.
    async fn serve(socket: UdpSocket, knows: &'static str, asked: Arc<Mutex<Vec<String>>>) {
        let mut packet = [0; 1500];
        while let Ok((length, peer)) = socket.recv_from(&mut packet).await {
            let question = Message::from_vec(&packet[..length]).expect("a query");
            let query = question.queries[0].clone();
            let name = query.name().to_string();
            let mut answer = question;
            answer.metadata.message_type = MessageType::Response;
            answer.additionals.clear();
            answer.edns = None;
            if name == knows && query.query_type() == RecordType::A {
                answer.answers = vec![Record::from_rdata(query.name().clone(), 60, RData::A(rdata::A(FOUND)))];
            } else if name != knows {
                answer.metadata.response_code = ResponseCode::NXDomain;
            }
            if query.query_type() == RecordType::A {
                asked.lock().expect("names").push(name);
            }
            socket.send_to(&answer.to_vec().expect("an answer"), peer).await.expect("send");
        }
    }

    /// Which names are asked for, in their order, and what is found.
    fn ask(text: &str, knows: &'static str, name: &str) -> (Vec<String>, Vec<IpAddr>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
            let port = socket.local_addr().expect("address").port();
            let asked = Arc::new(Mutex::new(Vec::new()));
            let server = tokio::spawn(serve(socket, knows, asked.clone()));
            let (config, options) = configuration(&format!("nameserver 127.0.0.1\n{text}")).expect("configuration");
            let (domain, search, mut servers) = config.into_parts();
            for connection in servers.iter_mut().flat_map(|server| server.connections.iter_mut()) {
                connection.port = port;
            }
            let resolver = build(ResolverConfig::from_parts(domain, search, servers), options).expect("resolver");
            let found = resolver.lookup_ip(name).await.map(|found| found.iter().collect()).unwrap_or_default();
            server.abort();
            let asked = asked.lock().expect("names").clone();
            (asked, found)
        })
    }

    fn found_after(text: &str, knows: &'static str, name: &str) -> Vec<String> {
        let (asked, found) = ask(text, knows, name);
        assert_eq!(found, [IpAddr::V4(FOUND)], "{text}: {name} was asked for as {asked:?}");
        asked
    }

    #[test]
    fn a_short_name_is_asked_for_below_the_search_list_in_its_order() {
        let text = "search a.test b.test\noptions edns0 trust-ad\n";
        assert_eq!(found_after(text, "store.b.test.", "store"), ["store.a.test.", "store.b.test."]);
        assert_eq!(found_after(text, "store.", "store"), ["store.a.test.", "store.b.test.", "store."]);
    }

    #[test]
    fn ndots_says_how_many_dots_make_a_name_that_is_asked_for_as_it_is_first() {
        let search = "search a.test\n";
        assert_eq!(found_after(search, "s3.lan.", "s3.lan"), ["s3.lan."]);
        let two = "search a.test\noptions ndots:2\n";
        assert_eq!(found_after(two, "s3.lan.a.test.", "s3.lan"), ["s3.lan.a.test."]);
        assert_eq!(found_after(two, "s3.lan.", "s3.lan"), ["s3.lan.a.test.", "s3.lan."]);
        assert_eq!(found_after(two, "x.s3.lan.", "x.s3.lan"), ["x.s3.lan."]);
        // With its dot at the end a name is whole, whatever ndots says.
        assert_eq!(found_after(two, "s3.lan.", "s3.lan."), ["s3.lan."]);
        assert_eq!(ask(two, "other.", "s3.lan."), (vec!["s3.lan.".to_owned()], vec![]));
    }

    #[test]
    fn the_last_of_search_and_domain_counts_alone_and_the_host_name_not_beside_them() {
        let names = |text: &str| {
            let (domain, search, _) = configuration(text).expect("configuration").0.into_parts();
            (domain.map(|name| name.to_string()), search.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(names("nameserver 127.0.0.1\ndomain a.test\nsearch b.test\n"), (None, vec!["b.test".to_owned()]));
        assert_eq!(names("nameserver 127.0.0.1\nsearch b.test\ndomain a.test\n"), (None, vec!["a.test".to_owned()]));
        assert!(names("nameserver 127.0.0.1\n").1.is_empty());
    }

    #[test]
    fn without_servers_the_local_one_is_asked() {
        for text in ["", "# nothing\nsearch a.test\n", "#nameserver 192.0.2.1"] {
            let (config, _) = configuration(text).expect("configuration");
            let servers: Vec<IpAddr> = config.name_servers().iter().map(|server| server.ip).collect();
            assert_eq!(servers, [IpAddr::V4(Ipv4Addr::LOCALHOST)], "{text:?}");
        }
    }

    #[test]
    fn options_of_the_file_are_kept() {
        let (_, options) = configuration("nameserver 192.0.2.1\noptions ndots:5 timeout:3 attempts:4\n").expect("ok");
        assert_eq!((options.ndots, options.timeout, options.attempts), (5, Duration::from_secs(3), 4));
        assert_eq!(options.negative_max_ttl, Some(REMEMBER_ABSENCE));
    }
}
