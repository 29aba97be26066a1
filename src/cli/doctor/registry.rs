//! Logins for ECR: does it give them, who reads them, and who stands in between.

use super::Check;
use crate::observe::text::expiry;
use kubestrap_core::ecr::host::Api;
use kubestrap_core::ecr::logins::{self, State};
use kubestrap_core::ecr::token::Login;
use kubestrap_core::ecr::wiring::{self, Wish};
use kubestrap_core::kube::KUBELET_CONF;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::node::Node;
use kubestrap_core::ports::TokenRequest;
use std::path::Path;
use std::time::Duration;

/// It reads one file and prints it.
const DUMP_DEADLINE: Duration = Duration::from_secs(10);
const LOGIN: &str = "ECR login";
const HOSTS: &str = "ECR hosts";
const CERTS: &str = "containerd's config_path";
const PROVIDERS: &str = "kubelet's credential providers";

/// ECR itself, then containerd's side, then the kubelet's.
pub async fn checks(node: &Node) -> Vec<Check> {
    if !node.settings.ecr.is_on(&node.identity) {
        return vec![Check::skipped(LOGIN, "not on EC2, and no registry is listed under `ecr`")];
    }
    let targets = logins::targets(&node.settings, &node.identity);
    let mut checks = Vec::new();
    for api in targets.keys() {
        checks.push(login(node, api).await);
    }
    checks.extend(targets.values().flatten().map(|host| host_check(node, host)));
    if !targets.is_empty() {
        checks.push(certs_dir(node).await);
    }
    checks.push(providers(node).await);
    checks
}

/// Really asks: permission, endpoint, network and clock in one.
async fn login(node: &Node, api: &Api) -> Check {
    let request = TokenRequest { api: api.clone(), role: None };
    let now = node.world.time.now();
    let read = match node.world.cloud.registry_token(&request).await {
        Ok(token) => Login::read(&token, now),
        Err(failure) => Err(failure),
    };
    let at = node.settings.ecr_endpoint.as_deref().map_or_else(String::new, |endpoint| format!(" at {endpoint}"));
    match read {
        Ok(login) if login.life(now).is_zero() => {
            let why = format!("the login it gave ended at {}, or ends within a minute", login.expires_at);
            let failure = Failure::new(Cause::ClockSkew, format!("get a login of {api}{at}"), why);
            Check::failed(LOGIN, &failure)
        }
        Ok(login) => Check::ok(LOGIN, format!("{api} gives one{at}; it ends {}", expiry(now, login.expires_at))),
        Err(failure) if *api == Api::Public && failure.cause == Cause::AccessDenied => Check::warning(
            LOGIN,
            format!("{api} gives none, so pulls from there are anonymous and limited: {}", failure.detail),
            "allow ecr-public:GetAuthorizationToken and sts:GetServiceBearerToken, or leave it so",
        ),
        Err(failure) => Check::failed(LOGIN, &failure),
    }
}

/// Whether containerd finds a login for a host.
fn host_check(node: &Node, host: &str) -> Check {
    let now = node.world.time.now();
    match logins::find(&*node.world.files, node.settings.ecr.certs_dir(), host) {
        Err(failure) => Check::failed(HOSTS, &failure),
        Ok(file) => match (&file.state, file.state.living(now)) {
            (_, Some(times)) => {
                Check::ok(HOSTS, format!("{host}: containerd's login ends {}", expiry(now, times.expires_at)))
            }
            (State::Foreign(why), _) => Check::warning(
                HOSTS,
                format!("{host}: containerd gets no login, because {why}"),
                "remove that file so that kubestrap writes one, or keep credentials in it yourself",
            ),
            (State::Ours { .. }, None) => Check::warning(
                HOSTS,
                format!("{host}: containerd's login has ended; pulls of the sandbox image and of kubeadm fail"),
                "see `systemctl status kubestrap`: the running agent renews it",
            ),
            (State::Free { .. }, None) => Check::skipped(HOSTS, format!("{host}: `run` writes a login for containerd")),
        },
    }
}

/// Without it containerd reads none of the files.
async fn certs_dir(node: &Node) -> Check {
    let argv = ["containerd", "config", "dump"].map(str::to_owned);
    let wanted = node.settings.ecr.certs_dir();
    match node.world.jobs.run(&argv, DUMP_DEADLINE).await {
        Err(failure) if failure.cause == Cause::ToolMissing => Check::skipped(CERTS, "containerd is not in PATH"),
        Err(failure) => Check::failed(CERTS, &failure),
        Ok(output) if output.code != Some(0) => {
            Check::skipped(CERTS, format!("`containerd config dump` failed with code {:?}", output.code))
        }
        Ok(output) => judge_certs_dir(config_path(&output.stdout), wanted),
    }
}

fn judge_certs_dir(found: Option<String>, wanted: &Path) -> Check {
    let shown = wanted.display();
    let fix = format!(
        "set config_path = \"{shown}\" in containerd's configuration under [plugins.\"io.containerd.cri.v1.images\".registry] \
         (containerd 1: [plugins.\"io.containerd.grpc.v1.cri\".registry]), and restart it"
    );
    match found.filter(|path| !path.is_empty()) {
        Some(path) if Path::new(&path) == wanted => {
            Check::ok(CERTS, format!("{path}: pulls of the sandbox image and of kubeadm have the login"))
        }
        // containerd#12808: its transfer service takes the list for the name of one folder.
        Some(path) if path.contains(':') => Check::warning(
            CERTS,
            format!("it is {path}: from containerd 2.1 on two folders are read as one name, and so no login is found"),
            fix,
        ),
        Some(path) => Check::warning(CERTS, format!("it is {path}, and logins are written to {shown}"), {
            format!("set `ecr.certs_dir` to it, or {fix}")
        }),
        None => Check::warning(
            CERTS,
            "it is not set: the sandbox image and kubeadm's own pulls from ECR have no login (the kubelet's have)",
            fix,
        ),
    }
}

/// `config_path` of the CRI plugin's registry section, in the form that `containerd config dump` prints.
fn config_path(dump: &str) -> Option<String> {
    let mut inside = false;
    for line in dump.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line.contains(".cri") && line.trim_end_matches(']').ends_with("registry");
        } else if let Some(value) = line.strip_prefix("config_path").filter(|_| inside) {
            let value = value.trim_start().strip_prefix('=')?.trim();
            return Some(value.trim_matches(['"', '\'']).to_owned());
        }
    }
    None
}

/// What the kubelet is told, and by whom.
async fn providers(node: &Node) -> Check {
    let joined = node.world.files.stat(Path::new(KUBELET_CONF)).map(|found| found.is_some());
    match (wiring::compare(node).await, joined) {
        (Err(failure), _) | (_, Err(failure)) => Check::failed(PROVIDERS, &failure),
        (Ok(Wish::LeftAlone(why)), _) => Check::warning(
            PROVIDERS,
            format!("somebody else's are in use: {why}"),
            "say `ecr: {enabled: true}` to have kubestrap among them, or `ecr: {enabled: false}`",
        ),
        (Ok(Wish::Write { place, .. }), Ok(false)) => {
            Check::skipped(PROVIDERS, format!("`run` writes {}", place.file.display()))
        }
        (Ok(Wish::Write { place, .. }), Ok(true)) => Check::warning(
            PROVIDERS,
            format!("{} is not what the configuration says", place.file.display()),
            "`systemctl restart kubestrap` writes it; the kubelet reads it when it is started again",
        ),
        (Ok(Wish::Done(place, rivals)), Ok(joined)) => match missing(node, &place.flags, joined) {
            Err(failure) => Check::failed(PROVIDERS, &failure),
            Ok(Some(check)) => check,
            Ok(None) => judge_rivals(&place, &rivals),
        },
    }
}

fn missing(node: &Node, flags: &wiring::KubeletFlags, joined: bool) -> Outcome<Option<Check>> {
    let missing = wiring::missing_flags(node, flags)?;
    if !joined || missing.is_empty() {
        return Ok(None);
    }
    let fix = format!(
        "add {} to KUBELET_KUBEADM_ARGS in {}, then `systemctl restart kubelet`",
        missing.join(" "),
        wiring::KUBELET_FLAGS
    );
    let why = "this node joined before kubestrap wired them: the kubelet was started without the flags";
    Ok(Some(Check::warning(PROVIDERS, why, fix)))
}

fn judge_rivals(place: &wiring::Place, rivals: &[String]) -> Check {
    match rivals {
        [] => Check::ok(PROVIDERS, format!("{} names {}", place.file.display(), place.program.name)),
        list => Check::warning(
            PROVIDERS,
            format!("for ECR's hosts the kubelet asks {} before it asks {}", list.join(", "), place.program.name),
            format!("remove it from {}, unless you want its logins first", place.flags.config.display()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Finding;
    use super::*;

    #[test]
    fn config_path_is_read_from_the_cri_plugin_alone() {
        let two = "[plugins]\n  [plugins.'io.containerd.cri.v1.images']\n    [plugins.'io.containerd.cri.v1.images'.registry]\n\
                   \x20     config_path = '/etc/containerd/certs.d:/etc/docker/certs.d'\n\
                   [plugins.'io.containerd.transfer.v1.local']\n    config_path = '/other'\n";
        assert_eq!(config_path(two).as_deref(), Some("/etc/containerd/certs.d:/etc/docker/certs.d"));
        let one = "[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"\"\n\
                   [plugins.\"io.containerd.grpc.v1.cri\".registry.auths]\n";
        assert_eq!(config_path(one).as_deref(), Some(""));
        let elsewhere = "[plugins.'io.containerd.transfer.v1.local']\n    config_path = '/etc/containerd/certs.d'\n";
        assert_eq!(config_path(elsewhere), None);
    }

    #[test]
    fn containerd_must_read_the_folder_that_logins_are_written_to() {
        let wanted = Path::new("/etc/containerd/certs.d");
        let finding = |path: Option<&str>| judge_certs_dir(path.map(str::to_owned), wanted).finding;
        assert_eq!(finding(Some("/etc/containerd/certs.d")), Finding::Ok);
        assert_eq!(finding(Some("/etc/docker/certs.d:/etc/containerd/certs.d")), Finding::Warning);
        assert_eq!(finding(Some("/etc/docker/certs.d")), Finding::Warning);
        assert_eq!(finding(Some("")), Finding::Warning);
        assert_eq!(finding(None), Finding::Warning);
    }
}
