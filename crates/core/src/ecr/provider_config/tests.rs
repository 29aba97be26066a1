use super::*;
use crate::ecr::host::Registry;

const ECR: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
const THEIRS: &str = "\
# Ours since 2023; ask the platform team.
kind: CredentialProviderConfig
apiVersion: kubelet.config.k8s.io/v1
providers:
  # Artifactory
  - name: corp-provider   # in /opt/credentials
    matchImages: [\"*.corp.example\"]
    defaultCacheDuration: 12h0m0s
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    someFutureField: yes

# the end
";

fn settings() -> Settings {
    crate::testing::settings("role: worker")
}

fn provider() -> Provider {
    Provider::new("kubestrap", &settings())
}

fn merged(existing: Option<&str>, provider: &Provider) -> Merged {
    merge("/x.yaml", existing, provider).expect("merged")
}

#[test]
fn a_new_file_has_everything_the_kubelet_asks_for() {
    let mut settings = settings();
    settings.ecr.mirrors.insert("m.corp.example:5000".into(), Registry::parse(ECR).expect("registry"));
    settings.ecr.audience = Some("sts.amazonaws.com".into());
    settings.ecr_endpoint = Some("https://vpce-1.api.ecr.eu-west-1.vpce.amazonaws.com".into());
    let text = merged(None, &Provider::new("kubestrap", &settings)).text;
    insta::assert_snapshot!(text);
    let of = |provider: &Provider, text: &str| merged(Some(text), provider).text;
    let provider = Provider::new("kubestrap", &settings);
    assert_eq!(of(&provider, &text), text, "twice is once");
    // What says more than that is read, and comes to the same.
    let commented = format!("# see the wiki\n{text}");
    assert_eq!(of(&provider, &commented), commented, "twice is once");
    settings.ecr.audience = None;
    assert_eq!(of(&provider, &of(&Provider::new("kubestrap", &settings), &text)), text, "there and back");
    assert_eq!(remove("/x", &text, "kubestrap"), Ok(Rest::Nothing));
}

#[test]
fn the_providers_of_others_stay_with_every_byte() {
    let plain = merged(Some(THEIRS), &provider());
    insta::assert_snapshot!(plain.text);
    assert_eq!(plain.rivals, Vec::<String>::new());
    assert_eq!(merged(Some(&plain.text), &provider()).text, plain.text, "twice is once");
    assert_eq!(remove("/x", &plain.text, "kubestrap"), Ok(Rest::Text(THEIRS.to_owned())));
    assert_eq!(remove("/x", THEIRS, "kubestrap"), Ok(Rest::Untouched));
    // What changes is replaced, and what somebody added behind it stays.
    let more =
        format!("{}  - name: later\n    matchImages: [x.example]\n", plain.text.trim_end_matches("\n# the end\n"));
    let mut settings = settings();
    settings.ecr_endpoint = Some("https://ecr.example".into());
    let again = merged(Some(&more), &Provider::new("kubestrap", &settings)).text;
    assert!(again.contains("https://ecr.example") && again.matches("name: \"kubestrap\"").count() == 1, "{again}");
    assert!(has("/x", &again, "later").expect("read") && has("/x", &again, "corp-provider").expect("read"), "{again}");
}

#[test]
fn every_form_of_a_list_takes_it_and_gives_it_back() {
    let entry = "{\"name\": \"corp\", \"matchImages\": [\"c.example\"]}";
    let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: CredentialProviderConfig\n";
    for theirs in [
        format!("{head}providers: [{entry}]\n"),
        format!("providers:\n- name: corp\n  matchImages:\n  - c.example\n{head}"),
        format!(
            "{head}providers: # all of them\n    - name: corp\n      args:\n      - |\n        - x\n        providers:\n"
        ),
        format!("{head}providers:\n  - name: corp"),
        format!(
            "{{\"kind\": \"{KIND}\", \"apiVersion\": \"{GROUP}v1\", \"providers\": [{entry}], \"x\": {{\"y\": 1}}}}"
        ),
        format!("{head}providers: []\nother: 1\n"),
        format!("{head}other: 1\n"),
    ] {
        let text = merged(Some(&theirs), &provider()).text;
        assert!(has("/x", &text, "kubestrap").expect("readable"), "{theirs}\n{text}");
        assert_eq!(theirs.starts_with('{'), text.starts_with('{'), "JSON stays JSON:\n{text}");
        assert_eq!(merged(Some(&text), &provider()).text, text, "twice is once");
        let Ok(Rest::Text(rest)) = remove("/x", &text, "kubestrap") else { panic!("{text}") };
        let (before, after) = (parse("/x", &theirs).expect("before"), parse("/x", &rest).expect("after"));
        assert_eq!(providers(&before), providers(&after), "{theirs}\n{rest}");
        assert_eq!(before.get("other"), after.get("other"));
        assert_eq!(before.get("x"), after.get("x"));
    }
}

#[test]
fn an_entry_of_our_name_without_marks_is_replaced() {
    let theirs = THEIRS.replace("corp-provider", "kubestrap");
    let text = merged(Some(&theirs), &provider()).text;
    assert_eq!(text.matches("kubestrap\"").count() + text.matches("name: kubestrap").count(), 1, "{text}");
    assert_eq!(remove("/x", &text, "kubestrap"), Ok(Rest::Nothing));
    // A mark without its end is no block of ours: nothing behind it is lost.
    let torn = merged(Some(THEIRS), &provider()).text.replace("# kubestrap: end\n", "");
    let again = merged(Some(&torn), &provider()).text;
    assert!(has("/x", &again, "corp-provider").expect("read"), "{again}");
}

#[test]
fn rivals_are_told_and_those_before_us_are_known() {
    let theirs = THEIRS
        .replace("*.corp.example", "*.dkr.ecr.*.amazonaws.com")
        .replace("corp-provider", "ecr-credential-provider");
    let both = merged(Some(&theirs), &provider());
    assert_eq!(both.rivals, ["ecr-credential-provider"]);
    assert_eq!(earlier_rivals("/x", &both.text, &provider()).expect("read"), ["ecr-credential-provider"]);
    let ours_alone = merged(None, &provider()).text;
    assert_eq!(earlier_rivals("/x", &ours_alone, &provider()).expect("read"), Vec::<String>::new());
}

#[test]
fn what_cannot_be_read_is_refused_with_its_place() {
    for (text, words) in [
        ("providers: [a", "line 1"),
        ("kind: CredentialProviderConfig\napiVersion: [\n", "line"),
        (
            "kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\n",
            "kind is not CredentialProviderConfig",
        ),
        ("kind: CredentialProviderConfig\napiVersion: kubeproxy.config.k8s.io/v1\n", "apiVersion"),
        ("kind: CredentialProviderConfig\napiVersion: kubelet.config.k8s.io/v1\nproviders: {}\n", "list of maps"),
        ("kind: CredentialProviderConfig\napiVersion: kubelet.config.k8s.io/v1\nproviders: [a]\n", "list of maps"),
        ("- a\n", "not a map"),
    ] {
        let failure = merge("/etc/x.yaml", Some(text), &provider()).expect_err(text);
        assert_eq!(failure.cause, Cause::Configuration);
        assert!(failure.to_string().contains("/etc/x.yaml") && failure.detail.contains(words), "{failure}");
        assert!(remove("/etc/x.yaml", text, "kubestrap").is_err());
    }
}

#[test]
fn service_account_tokens_need_a_kubelet_and_a_document_that_know_them() {
    let mut settings = settings();
    settings.ecr.audience = Some("sts.amazonaws.com".into());
    let provider = Provider::new("kubestrap", &settings);
    let version = |text| KubeVersion::parse(text).expect("version");
    assert!(provider.refuse_old(&version("v1.34.0")).is_ok());
    assert_eq!(provider.refuse_old(&version("v1.33.9")).expect_err("old").cause, Cause::Configuration);
    assert!(self::provider().refuse_old(&version("v1.31.0")).is_ok());
    let beta = THEIRS.replace("k8s.io/v1\nproviders", "k8s.io/v1beta1\nproviders");
    assert!(merge("/x", Some(&beta), &provider).expect_err("beta").detail.contains("kubelet.config.k8s.io/v1,"));
    assert!(merge("/x", Some(THEIRS), &provider).is_ok());
}
