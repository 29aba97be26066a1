//! Which hosts are ECR registries, and which API gives the tokens for them.
//!
//! A token opens every registry its principal may read, so a host that only looks like ECR's must never receive one:
//! everything here is an exact match. The forms are those of the upstream plugin (cloud-provider-aws,
//! `cmd/ecr-credential-provider/main.go`) less upper case and underscores, which no registry has.

use std::fmt;

/// The domains that registries lie in, longest first; whether they are reached over IPv6 too; and the regions there.
const DOMAINS: &[Domain] = &[
    Domain { suffix: "on.amazonwebservices.com.cn", dual_stack: true, partition: Partition::China },
    Domain { suffix: "amazonaws.com.cn", dual_stack: false, partition: Partition::China },
    Domain { suffix: "amazonaws.com", dual_stack: false, partition: Partition::Common },
    Domain { suffix: "on.aws", dual_stack: true, partition: Partition::Common },
    Domain { suffix: "amazonaws.eu", dual_stack: false, partition: Partition::Europe },
    Domain { suffix: "c2s.ic.gov", dual_stack: false, partition: Partition::Iso },
    Domain { suffix: "sc2s.sgov.gov", dual_stack: false, partition: Partition::IsoB },
    Domain { suffix: "cloud.adc-e.uk", dual_stack: false, partition: Partition::IsoE },
    Domain { suffix: "csp.hci.ic.gov", dual_stack: false, partition: Partition::IsoF },
];
const PUBLIC_HOSTS: [&str; 2] = ["public.ecr.aws", "ecr-public.aws.com"];
/// Where public registries are asked for tokens, and nowhere else.
const PUBLIC_REGION: &str = "us-east-1";
/// The longest region is `us-northeast-1`-like; what is longer is no region.
const MAX_REGION: usize = 32;

/// Every ECR host as the kubelet's `matchImages` writes it: a glob stands for one label, or a part of one. That a
/// glob matches only makes the kubelet ask; who gets a token is decided by [`Registry::parse`].
pub const MATCH_IMAGES: &[&str] = &[
    "*.dkr.ecr.*.amazonaws.com",
    "*.dkr.ecr-fips.*.amazonaws.com",
    "*.dkr-ecr.*.on.aws",
    "*.dkr-ecr-fips.*.on.aws",
    "*.dkr.ecr.*.amazonaws.com.cn",
    "*.dkr-ecr.*.on.amazonwebservices.com.cn",
    "*.dkr.ecr.*.amazonaws.eu",
    "*.dkr.ecr.*.c2s.ic.gov",
    "*.dkr.ecr-fips.*.c2s.ic.gov",
    "*.dkr.ecr.*.sc2s.sgov.gov",
    "*.dkr.ecr-fips.*.sc2s.sgov.gov",
    "*.dkr.ecr.*.cloud.adc-e.uk",
    "*.dkr.ecr-fips.*.cloud.adc-e.uk",
    "*.dkr.ecr.*.csp.hci.ic.gov",
    "*.dkr.ecr-fips.*.csp.hci.ic.gov",
    "public.ecr.aws",
    "ecr-public.aws.com",
];

struct Domain {
    suffix: &'static str,
    dual_stack: bool,
    partition: Partition,
}

/// Partitions that do not share credentials; `Common` holds the commercial regions and GovCloud, which share a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Partition {
    Common,
    China,
    Europe,
    Iso,
    IsoB,
    IsoE,
    IsoF,
}

impl Partition {
    /// By the region's name, as AWS's `partitions.json` has it; what is not known there is a new commercial region.
    fn of(region: &str) -> Partition {
        const PREFIXES: &[(&str, Partition)] = &[
            ("cn-", Partition::China),
            ("eusc-", Partition::Europe),
            ("us-iso-", Partition::Iso),
            ("us-isob-", Partition::IsoB),
            ("eu-isoe-", Partition::IsoE),
            ("us-isof-", Partition::IsoF),
            ("eu-isof-", Partition::IsoF),
        ];
        PREFIXES.iter().find(|(prefix, _)| region.starts_with(prefix)).map_or(Partition::Common, |(_, found)| *found)
    }
}

/// Which API gives the tokens for a registry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Api {
    /// ECR of a region. A token is good for every account's registries there that the principal may read.
    Private {
        /// The region, also the one requests are signed for.
        region: String,
        /// The endpoint with FIPS 140 validated cryptography.
        fips: bool,
        /// The endpoint with IPv6.
        dual_stack: bool,
    },
    /// ECR Public, in `us-east-1` alone.
    Public,
}

impl Api {
    /// The region that requests are signed for.
    pub fn region(&self) -> &str {
        match self {
            Api::Private { region, .. } => region,
            Api::Public => PUBLIC_REGION,
        }
    }
}

impl fmt::Display for Api {
    /// `ECR in eu-west-1 (FIPS)`, for messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Api::Public => f.write_str("ECR Public"),
            Api::Private { region, fips, dual_stack } => {
                let form = match (fips, dual_stack) {
                    (false, false) => "",
                    (true, false) => " (FIPS)",
                    (false, true) => " (dual-stack)",
                    (true, true) => " (FIPS, dual-stack)",
                };
                write!(f, "ECR in {region}{form}")
            }
        }
    }
}

/// A registry of ECR, known by its host name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    host: String,
    account: Option<String>,
    api: Api,
}

impl Registry {
    /// The registry with exactly this host name, without a port; `None` for every other host.
    pub fn parse(host: &str) -> Option<Registry> {
        if PUBLIC_HOSTS.contains(&host) {
            return Some(Registry { host: host.to_owned(), account: None, api: Api::Public });
        }
        let (account, rest) = host.split_once('.')?;
        let rest = rest.strip_prefix("dkr.ecr").or_else(|| rest.strip_prefix("dkr-ecr"))?;
        let (fips, rest) = rest.strip_prefix("-fips").map_or((false, rest), |rest| (true, rest));
        let (region, suffix) = rest.strip_prefix('.')?.split_once('.')?;
        let domain = DOMAINS.iter().find(|domain| domain.suffix == suffix)?;
        let ours = is_account(account) && is_region(region) && Partition::of(region) == domain.partition;
        let api = Api::Private { region: region.to_owned(), fips, dual_stack: domain.dual_stack };
        ours.then(|| Registry { host: host.to_owned(), account: Some(account.to_owned()), api })
    }

    /// The usual host of an account's registry in a region; `None` when they cannot be an account and a region.
    pub fn private(account: &str, region: &str) -> Option<Registry> {
        let usual = |domain: &&Domain| domain.partition == Partition::of(region) && !domain.dual_stack;
        let suffix = DOMAINS.iter().find(usual)?.suffix;
        Registry::parse(&format!("{account}.dkr.ecr.{region}.{suffix}"))
    }

    /// The host name.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The account it belongs to, twelve digits; `None` for public registries.
    pub fn account(&self) -> Option<&str> {
        self.account.as_deref()
    }

    /// The region that is asked for tokens.
    pub fn region(&self) -> &str {
        self.api.region()
    }

    /// The API that gives tokens for it.
    pub fn api(&self) -> &Api {
        &self.api
    }
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// It becomes a part of the API's host name.
fn is_region(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=MAX_REGION).contains(&text.len())
        && text.bytes().all(is_plain)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(host: &str) -> Option<String> {
        Registry::parse(host).map(|registry| registry.api().to_string())
    }

    #[test]
    fn every_form_of_host_has_its_matching_api() {
        let table = [
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "ECR in eu-west-1"),
            ("123456789012.dkr.ecr-fips.us-east-1.amazonaws.com", "ECR in us-east-1 (FIPS)"),
            ("123456789012.dkr.ecr.us-gov-west-1.amazonaws.com", "ECR in us-gov-west-1"),
            ("123456789012.dkr-ecr.eu-west-1.on.aws", "ECR in eu-west-1 (dual-stack)"),
            ("123456789012.dkr-ecr-fips.us-west-2.on.aws", "ECR in us-west-2 (FIPS, dual-stack)"),
            ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", "ECR in cn-north-1"),
            ("123456789012.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn", "ECR in cn-north-1 (dual-stack)"),
            ("123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu", "ECR in eusc-de-east-1"),
            ("123456789012.dkr.ecr.us-iso-east-1.c2s.ic.gov", "ECR in us-iso-east-1"),
            ("123456789012.dkr.ecr.us-isob-east-1.sc2s.sgov.gov", "ECR in us-isob-east-1"),
            ("123456789012.dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk", "ECR in eu-isoe-west-1"),
            ("123456789012.dkr.ecr-fips.us-isof-south-1.csp.hci.ic.gov", "ECR in us-isof-south-1 (FIPS)"),
            ("public.ecr.aws", "ECR Public"),
            ("ecr-public.aws.com", "ECR Public"),
        ];
        for (host, expected) in table {
            assert_eq!(api(host).as_deref(), Some(expected), "{host}");
        }
        assert_eq!(Registry::parse(table[0].0).expect("ours").account(), Some("123456789012"));
        assert_eq!(Registry::parse("public.ecr.aws").expect("ours").region(), "us-east-1");
    }

    #[test]
    fn what_only_looks_like_ecr_is_not() {
        let others = [
            "12345678901.dkr.ecr.eu-west-1.amazonaws.com",
            "1234567890123.dkr.ecr.eu-west-1.amazonaws.com",
            "12345678901a.dkr.ecr.eu-west-1.amazonaws.com",
            "\u{661}23456789012.dkr.ecr.eu-west-1.amazonaws.com",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.co",
            "123456789012.dkr.ecr.eu-west-1.evil-amazonaws.com",
            "evil.example/123456789012.dkr.ecr.eu-west-1.amazonaws.com",
            "x.123456789012.dkr.ecr.eu-west-1.amazonaws.com",
            "123456789012.dkr.ecr.eu-west-1.x.amazonaws.com",
            "123456789012.dkr.ecr..amazonaws.com",
            "123456789012.dkr.ecr.-eu.amazonaws.com",
            "123456789012.dkr.ecr.eu_west.amazonaws.com",
            "123456789012.DKR.ecr.eu-west-1.amazonaws.com",
            "123456789012.dkr.ecr.EU-WEST-1.amazonaws.com",
            "123456789012.dkr.ecrfips.eu-west-1.amazonaws.com",
            "123456789012.dkr.ecr-fips-2.eu-west-1.amazonaws.com",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com.",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com:443",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com\n",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com.cn",
            "123456789012.dkr.ecr.cn-north-1.amazonaws.com",
            "123456789012.dkr.ecr.us-iso-east-1.amazonaws.com",
            "123456789012.dkr.ecr.us-east-1.c2s.ic.gov",
            "public.ecr.aws.evil.example",
            "evil.public.ecr.aws",
            "amazonaws.com",
            "",
        ];
        for host in others {
            assert_eq!(api(host), None, "{host:?}");
        }
        let long = format!("123456789012.dkr.ecr.{}.amazonaws.com", "a".repeat(MAX_REGION + 1));
        assert_eq!(api(&long), None);
    }

    #[test]
    fn an_account_has_its_usual_host() {
        let host = |region| Registry::private("123456789012", region).map(|registry| registry.host().to_owned());
        let found = |text: &str| Some(text.to_owned());
        assert_eq!(host("eu-west-1"), found("123456789012.dkr.ecr.eu-west-1.amazonaws.com"));
        assert_eq!(host("us-gov-east-1"), found("123456789012.dkr.ecr.us-gov-east-1.amazonaws.com"));
        assert_eq!(host("cn-north-1"), found("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn"));
        assert_eq!(host("us-isob-east-1"), found("123456789012.dkr.ecr.us-isob-east-1.sc2s.sgov.gov"));
        assert_eq!(host("../x"), None);
        assert_eq!(Registry::private("1", "eu-west-1"), None);
    }

    /// The kubelet's rule: as many labels, and each matches.
    fn globbed(glob: &str, host: &str) -> bool {
        let (globs, labels): (Vec<_>, Vec<_>) = (glob.split('.').collect(), host.split('.').collect());
        globs.len() == labels.len() && globs.iter().zip(&labels).all(|(glob, label)| *glob == "*" || glob == label)
    }

    #[test]
    fn the_kubelet_asks_for_every_form_once() {
        for domain in DOMAINS {
            let region = match domain.partition {
                Partition::Common => "eu-west-1",
                Partition::China => "cn-north-1",
                Partition::Europe => "eusc-de-east-1",
                Partition::Iso => "us-iso-east-1",
                Partition::IsoB => "us-isob-east-1",
                Partition::IsoE => "eu-isoe-west-1",
                Partition::IsoF => "us-isof-south-1",
            };
            let service = if domain.dual_stack { "dkr-ecr" } else { "dkr.ecr" };
            let host = format!("123456789012.{service}.{region}.{}", domain.suffix);
            assert!(Registry::parse(&host).is_some(), "{host}");
            assert_eq!(MATCH_IMAGES.iter().filter(|glob| globbed(glob, &host)).count(), 1, "{host}");
        }
    }
}
