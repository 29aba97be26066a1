//! Whether two globs of `matchImages` can match one host.

/// The kubelet's rule: globs stand for single labels of the domain, or for parts of them; a port counts when both have
/// one. Paths are left out of account: two providers of one host are rivals there.
pub(super) fn overlap(a: &str, b: &str) -> bool {
    let ((host_a, port_a), (host_b, port_b)) = (split(a), split(b));
    let ports = port_a.zip(port_b).is_none_or(|(a, b)| a == b);
    let (labels_a, labels_b): (Vec<_>, Vec<_>) = (host_a.split('.').collect(), host_b.split('.').collect());
    ports && labels_a.len() == labels_b.len() && labels_a.iter().zip(&labels_b).all(|(a, b)| label(a, b))
}

fn split(glob: &str) -> (&str, Option<&str>) {
    let glob = glob.trim_start_matches("https://").trim_start_matches("http://");
    let host = glob.split('/').next().unwrap_or_default();
    host.split_once(':').map_or((host, None), |(host, port)| (host, Some(port)))
}

/// Two labels can be the same one when what stands before the first and behind the last glob of each agrees.
fn label(a: &str, b: &str) -> bool {
    let is_glob = |c: char| matches!(c, '*' | '?' | '[');
    let ends = |text: &'_ str| -> Option<(String, String)> {
        let first = text.find(is_glob)?;
        let last = text.rfind(['*', '?', ']'])?;
        Some((text[..first].to_owned(), text[last + 1..].to_owned()))
    };
    let agree = |a: &str, b: &str| a.starts_with(b) || b.starts_with(a);
    let agree_back = |a: &str, b: &str| a.ends_with(b) || b.ends_with(a);
    match (ends(a), ends(b)) {
        (None, None) => a == b,
        (Some((front, back)), None) => b.starts_with(&front) && b.ends_with(&back),
        (None, Some((front, back))) => a.starts_with(&front) && a.ends_with(&back),
        (Some((front_a, back_a)), Some((front_b, back_b))) => agree(&front_a, &front_b) && agree_back(&back_a, &back_b),
    }
}

#[cfg(test)]
mod tests {
    use super::overlap;

    #[test]
    fn globs_overlap_when_one_host_fits_both() {
        let ecr = "*.dkr.ecr.*.amazonaws.com";
        for glob in
            [ecr, "123456789012.dkr.ecr.*.amazonaws.com", "*.*.*.*.amazonaws.com", "*.dkr.ecr.*.amazonaws.com/team"]
        {
            assert!(overlap(glob, ecr) && overlap(ecr, glob), "{glob}");
        }
        for glob in ["*.amazonaws.com", "*.dkr.ecr-fips.*.amazonaws.com", "gcr.io", "*.dkr.ecr.*.amazonaws.com.cn"] {
            assert!(!overlap(glob, ecr) && !overlap(ecr, glob), "{glob}");
        }
        assert!(overlap("*.dkr.ecr*.*.amazonaws.com", "*.dkr.ecr-fips.*.amazonaws.com"));
        assert!(overlap("m.example", "m.example:5000") && !overlap("m.example:80", "m.example:5000"));
        assert!(overlap("a*.example", "*b.example") && !overlap("a*.example", "b*.example"));
    }
}
