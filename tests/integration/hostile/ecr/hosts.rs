//! Hosts that only look like ECR's. The cache is warm when they ask, so that a login is there to be given.

use super::{HOST, Plugin, each, well};
use crate::peer::Peer;

/// What, and the image that names it.
pub const LOOK_ALIKES: &[(&str, &str)] = &[
    ("eleven digits", "12345678901.dkr.ecr.eu-west-1.amazonaws.com/app"),
    ("thirteen digits", "1234567890123.dkr.ecr.eu-west-1.amazonaws.com/app"),
    ("no digits", ".dkr.ecr.eu-west-1.amazonaws.com/app"),
    ("no account", "dkr.ecr.eu-west-1.amazonaws.com/app"),
    ("a letter among the digits", "12345678901O.dkr.ecr.eu-west-1.amazonaws.com/app"),
    ("a sign before the digits", "-23456789012.dkr.ecr.eu-west-1.amazonaws.com/app"),
    ("hexadecimal digits", "0x3456789012.dkr.ecr.eu-west-1.amazonaws.com/app"),
    ("an underscore among the digits", "12345_789012.dkr.ecr.eu-west-1.amazonaws.com/app"),
    ("digits of full width", "\u{ff11}23456789012.dkr.ecr.eu-west-1.amazonaws.com/app"),
    ("Arabic digits", "\u{661}\u{662}\u{663}456789012.dkr.ecr.eu-west-1.amazonaws.com/app"),
    ("superscript digits", "\u{b9}23456789012.dkr.ecr.eu-west-1.amazonaws.com/app"),
    ("a foreign suffix", "123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example/app"),
    ("a foreign suffix without a dot", "123456789012.dkr.ecr.eu-west-1.amazonaws.comevil.example/app"),
    ("another top level", "123456789012.dkr.ecr.eu-west-1.amazonaws.co/app"),
    ("another country", "123456789012.dkr.ecr.eu-west-1.amazonaws.com.au/app"),
    ("China's domain for a region elsewhere", "123456789012.dkr.ecr.eu-west-1.amazonaws.com.cn/app"),
    ("a Chinese region elsewhere", "123456789012.dkr.ecr.cn-north-1.amazonaws.com/app"),
    ("a secret region elsewhere", "123456789012.dkr.ecr.us-iso-east-1.amazonaws.com/app"),
    ("a domain that ends like AWS's", "123456789012.dkr.ecr.eu-west-1.evil-amazonaws.com/app"),
    ("a domain before AWS's", "123456789012.dkr.ecr.eu-west-1.evil.amazonaws.com/app"),
    ("a bucket with the name of a registry", "123456789012.dkr.ecr.eu-west-1.s3.amazonaws.com/app"),
    ("the website of such a bucket", "123456789012.dkr.ecr.s3-website-eu-west-1.amazonaws.com.evil.example/app"),
    ("the API itself", "api.ecr.eu-west-1.amazonaws.com/app"),
    ("another service of the account", "123456789012.s3.eu-west-1.amazonaws.com/app"),
    ("no region", "123456789012.dkr.ecr.amazonaws.com/app"),
    ("an empty region", "123456789012.dkr.ecr..amazonaws.com/app"),
    ("a region that is a path", "123456789012.dkr.ecr.evil.example/.amazonaws.com/app"),
    ("a region that is a query", "123456789012.dkr.ecr.evil.example?.amazonaws.com/app"),
    ("a region that is a fragment", "123456789012.dkr.ecr.evil.example#.amazonaws.com/app"),
    ("a region with an underscore", "123456789012.dkr.ecr.eu_west.amazonaws.com/app"),
    ("a region that begins with a hyphen", "123456789012.dkr.ecr.-eu-west-1.amazonaws.com/app"),
    (
        "a region of sixty letters",
        "123456789012.dkr.ecr.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.amazonaws.com/app",
    ),
    ("another form of FIPS", "123456789012.dkr.ecrfips.eu-west-1.amazonaws.com/app"),
    ("a registry of something else", "123456789012.dkr.gcr.eu-west-1.amazonaws.com/app"),
    ("a label before the account", "x.123456789012.dkr.ecr.eu-west-1.amazonaws.com/app"),
    ("the name in the path", "evil.example/123456789012.dkr.ecr.eu-west-1.amazonaws.com/app"),
    ("the suffix in the path", "123456789012.dkr.ecr.evil.example/eu-west-1.amazonaws.com/app"),
    ("a port before the name", "evil.example:443/123456789012.dkr.ecr.eu-west-1.amazonaws.com/app"),
    ("a trailing dot", "123456789012.dkr.ecr.eu-west-1.amazonaws.com./app"),
    ("a leading dot", ".123456789012.dkr.ecr.eu-west-1.amazonaws.com/app"),
    ("two dots", "123456789012..dkr.ecr.eu-west-1.amazonaws.com/app"),
    ("an ideographic full stop", "123456789012\u{3002}dkr.ecr.eu-west-1.amazonaws.com/app"),
    ("upper case", "123456789012.DKR.ECR.EU-WEST-1.AMAZONAWS.COM/app"),
    ("one upper case letter", "123456789012.dkr.ecr.eu-west-1.amazonaws.coM/app"),
    ("a Cyrillic letter", "123456789012.dkr.ecr.eu-west-1.\u{430}mazonaws.com/app"),
    ("a Greek letter", "123456789012.dkr.ecr.eu-west-1.amaz\u{3bf}naws.com/app"),
    ("a long s, which is an s in upper case", "123456789012.dkr.ecr.eu-west-1.amazonaw\u{17f}.com/app"),
    ("a letter of full width", "123456789012.dkr.ecr.eu-west-1.amazonaws.co\u{ff4d}/app"),
    ("punycode", "123456789012.dkr.ecr.eu-west-1.xn--mazonaws-2fg.com/app"),
    ("a zero width space", "123456789012.dkr.ecr.eu-west-1.amazonaws.com\u{200b}/app"),
    ("a soft hyphen", "123456789012.dkr.ecr.eu-west-1.amazon\u{ad}aws.com/app"),
    ("text from right to left", "\u{202e}moc.swanozama.1-tsew-ue.rce.rkd.210987654321/app"),
    ("a user name", "123456789012.dkr.ecr.eu-west-1.amazonaws.com@evil.example/app"),
    ("a user name and a password", "123456789012.dkr.ecr.eu-west-1.amazonaws.com:443@evil.example/app"),
    ("a user name before ECR", "evil@123456789012.dkr.ecr.eu-west-1.amazonaws.com/app"),
    ("an escaped user name", "123456789012.dkr.ecr.eu-west-1.amazonaws.com%40evil.example/app"),
    ("another port", "123456789012.dkr.ecr.eu-west-1.amazonaws.com:5000/app"),
    ("the port of plain HTTP", "123456789012.dkr.ecr.eu-west-1.amazonaws.com:80/app"),
    ("a port with zeros", "123456789012.dkr.ecr.eu-west-1.amazonaws.com:00443/app"),
    ("a port that wraps around to 443", "123456789012.dkr.ecr.eu-west-1.amazonaws.com:65979/app"),
    ("an empty port", "123456789012.dkr.ecr.eu-west-1.amazonaws.com:/app"),
    ("two ports", "123456789012.dkr.ecr.eu-west-1.amazonaws.com:443:443/app"),
    ("a negative port", "123456789012.dkr.ecr.eu-west-1.amazonaws.com:-443/app"),
    ("a port of full width", "123456789012.dkr.ecr.eu-west-1.amazonaws.com:\u{ff14}43/app"),
    ("a port that is a host", "123456789012.dkr.ecr.eu-west-1.amazonaws.com:evil.example/app"),
    ("an escaped dot", "123456789012%2edkr.ecr.eu-west-1.amazonaws.com/app"),
    ("an escaped slash", "evil.example%2F.123456789012.dkr.ecr.eu-west-1.amazonaws.com/app"),
    ("an escaped digit", "%3123456789012.dkr.ecr.eu-west-1.amazonaws.com/app"),
    ("an escaped end", "123456789012.dkr.ecr.eu-west-1.amazonaws.com%00.evil.example/app"),
    ("a line feed", "123456789012.dkr.ecr.eu-west-1.amazonaws.com\n.evil.example/app"),
    ("a line feed before the name", "evil.example\n123456789012.dkr.ecr.eu-west-1.amazonaws.com/app"),
    ("a line feed behind the host", "123456789012.dkr.ecr.eu-west-1.amazonaws.com\n/app"),
    ("a carriage return", "123456789012.dkr.ecr.eu-west-1.amazonaws.com\r/app"),
    ("a NUL", "123456789012.dkr.ecr.eu-west-1.amazonaws.com\0.evil.example/app"),
    ("a tab", "123456789012.dkr.ecr.eu-west-1.amazonaws.com\t/app"),
    ("a space before the name", " 123456789012.dkr.ecr.eu-west-1.amazonaws.com/app"),
    ("a backslash", "evil.example\\123456789012.dkr.ecr.eu-west-1.amazonaws.com/app"),
    ("a scheme", "https://123456789012.dkr.ecr.eu-west-1.amazonaws.com/app"),
    ("a scheme of containers", "docker://123456789012.dkr.ecr.eu-west-1.amazonaws.com/app"),
    ("no scheme and two slashes", "//123456789012.dkr.ecr.eu-west-1.amazonaws.com/app"),
    ("brackets", "[123456789012.dkr.ecr.eu-west-1.amazonaws.com]/app"),
    ("a list of hosts", "123456789012.dkr.ecr.eu-west-1.amazonaws.com,evil.example/app"),
    ("a glob", "*.dkr.ecr.eu-west-1.amazonaws.com/app"),
    ("the whole Internet", "*/app"),
    ("the host alone", "123456789012.dkr.ecr.eu-west-1.amazonaws.com"),
    ("the host and a tag", "123456789012.dkr.ecr.eu-west-1.amazonaws.com:latest"),
    ("the host and nothing behind it", "123456789012.dkr.ecr.eu-west-1.amazonaws.com/"),
    ("a digest before the path", "123456789012.dkr.ecr.eu-west-1.amazonaws.com@sha256:00/app"),
    ("ECR Public with a suffix", "public.ecr.aws.evil.example/app"),
    ("ECR Public with a prefix", "xpublic.ecr.aws/app"),
    ("ECR Public below something", "evil.public.ecr.aws/app"),
    ("ECR Public with a hyphen", "public-ecr.aws/app"),
    ("ECR Public at another port", "public.ecr.aws:5000/app"),
    ("the other name of ECR Public with a suffix", "ecr-public.aws.com.evil.example/app"),
    ("Docker Hub", "nginx"),
    ("a user of Docker Hub", "library/nginx"),
    ("somebody else's registry", "ghcr.io/app"),
    ("this machine", "localhost/app"),
    ("the metadata service", "169.254.169.254/app"),
    ("an IPv6 address", "[::1]:443/app"),
    ("a mirror's other port", "mirror.example:5001/app"),
    ("a mirror without its port", "mirror.example/app"),
    ("a mirror in upper case", "Mirror.example:5000/app"),
    ("a mirror with a suffix", "mirror.example:5000.evil.example/app"),
    ("below a mirror", "x.mirror.example:5000/app"),
];

/// What, and the value of `--mirror`.
pub const MIRRORS: &[(&str, &str)] = &[
    (
        "a registry that only looks like ECR's",
        "mirror.example=123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example",
    ),
    ("a registry with a port", "mirror.example=123456789012.dkr.ecr.eu-west-1.amazonaws.com:443"),
    ("a mirror of itself", "mirror.example=mirror.example"),
    ("every host", "*=123456789012.dkr.ecr.eu-west-1.amazonaws.com"),
    ("every host of a domain", "*.example=123456789012.dkr.ecr.eu-west-1.amazonaws.com"),
    ("no host", "=123456789012.dkr.ecr.eu-west-1.amazonaws.com"),
    ("no registry", "mirror.example="),
    ("one name", "mirror.example"),
    ("two registries", "mirror.example=123456789012.dkr.ecr.eu-west-1.amazonaws.com=evil.example"),
    ("a scheme", "https://mirror.example=123456789012.dkr.ecr.eu-west-1.amazonaws.com"),
    ("a user name", "user@mirror.example=123456789012.dkr.ecr.eu-west-1.amazonaws.com"),
    ("a path", "mirror.example/team=123456789012.dkr.ecr.eu-west-1.amazonaws.com"),
    ("a line feed", "mirror.example\nx=123456789012.dkr.ecr.eu-west-1.amazonaws.com"),
    ("upper case", "MIRROR.example=123456789012.dkr.ecr.eu-west-1.amazonaws.com"),
    (
        "a registry of ECR as a mirror",
        "210987654321.dkr.ecr.eu-west-1.amazonaws.com=123456789012.dkr.ecr.eu-west-1.amazonaws.com",
    ),
];

#[test]
fn no_look_alike_gets_a_login_or_causes_a_call() {
    let aws = Peer::start(well);
    let plugin = Plugin::of(&aws);
    let mirror = format!("mirror.example:5000={HOST}");
    let mirror = ["--mirror", &mirror];
    plugin.asked_with(&mirror, "mirror.example:5000/app").login_for("mirror.example:5000");
    assert_eq!(aws.requests(), 1);
    each(
        4,
        LOOK_ALIKES,
        |(name, _)| (*name).to_owned(),
        |(_, image)| {
            plugin.asked_with(&mirror, image).refused(2, "find the registry of the image");
        },
    );
    assert_eq!((aws.requests(), plugin.files("json").len()), (1, 1));
}

#[test]
fn every_form_of_host_gets_a_login_of_its_own_api_and_under_its_own_name() {
    let aws = Peer::start(well);
    let plugin = Plugin::of(&aws);
    let hosts = [
        HOST,
        "123456789012.dkr.ecr-fips.us-east-1.amazonaws.com",
        "123456789012.dkr.ecr.us-gov-west-1.amazonaws.com",
        "123456789012.dkr-ecr.eu-west-1.on.aws",
        "123456789012.dkr-ecr-fips.us-west-2.on.aws",
        "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
        "123456789012.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn",
        "123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu",
        "123456789012.dkr.ecr.us-iso-east-1.c2s.ic.gov",
        "123456789012.dkr.ecr.us-isob-east-1.sc2s.sgov.gov",
        "123456789012.dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk",
        "123456789012.dkr.ecr.us-isof-south-1.csp.hci.ic.gov",
    ];
    each(
        4,
        &hosts,
        |host| (*host).to_owned(),
        |host| {
            plugin.asked_for(&format!("{host}/team/app:v1@sha256:{}", "0".repeat(64))).login_for(host);
        },
    );
    assert_eq!((aws.requests(), plugin.files("json").len()), (12, 12));
}

#[test]
fn a_mirror_that_is_no_host_is_refused() {
    let aws = Peer::start(well);
    let plugin = Plugin::of(&aws);
    each(
        4,
        MIRRORS,
        |(name, _)| (*name).to_owned(),
        |(_, mirror)| {
            // Also for an image that needs no mirror: what is configured is wrong.
            plugin.asked_with(&["--mirror", mirror], &format!("{HOST}/app")).refused(2, "use --mirror");
        },
    );
    assert_eq!(aws.requests(), 0);
}
