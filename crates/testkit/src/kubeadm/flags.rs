//! Command line parsing with the rules and texts of cobra and pflag.

use super::Failure;
use std::collections::BTreeMap;

/// Flags of every command: name, whether it takes a value.
const GLOBAL: &[(&str, bool)] = &[("rootfs", true), ("v", true), ("vmodule", true)];
/// Commands and their flags. Flags that the real kubeadm has and the stand-in does not are absent: being refused is
/// better than being ignored.
const COMMANDS: &[(&str, &[(&str, bool)])] = &[
    ("version", &[("output", true)]),
    (
        "init",
        &[("config", true), ("skip-token-print", false), ("skip-phases", true), ("ignore-preflight-errors", true)],
    ),
    ("join", &[("config", true), ("skip-phases", true), ("ignore-preflight-errors", true)]),
    ("reset", &[("config", true), ("force", false), ("ignore-preflight-errors", true)]),
    ("certs renew all", &[]),
    ("config images list", &[("config", true), ("kubernetes-version", true), ("image-repository", true)]),
    ("standin-apiserver", &[("detach", false)]),
];

/// Parsed flags.
#[derive(Debug, Default)]
pub struct Flags {
    values: BTreeMap<String, String>,
}

impl Flags {
    /// The value of a flag; `None` when it was not given.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Whether a boolean flag is true.
    pub fn is_set(&self, name: &str) -> bool {
        self.text(name) == Some("true")
    }
}

/// The command these arguments name (`config images list` is one).
///
/// # Errors
/// When there is no such command.
pub fn command(arguments: &[String]) -> Result<String, Failure> {
    let mut words: Vec<&str> = Vec::new();
    let (mut skip, mut unknown) = (false, false);
    for argument in arguments {
        if skip {
            skip = false;
        } else if let Some(flag) = argument.strip_prefix('-') {
            // A flag before the command may be a global one with its value in the next argument.
            let name = flag.trim_start_matches('-');
            skip = !name.contains('=') && takes_value(name).unwrap_or(false);
            unknown |= takes_value(name.split('=').next().unwrap_or(name)).is_none();
        } else {
            words.push(argument);
        }
    }
    let known = COMMANDS.iter().map(|(name, _)| *name);
    let matching = known.filter(|name| {
        words.join(" ").split(' ').zip(name.split(' ')).filter(|(a, b)| a == b).count() == name.split(' ').count()
    });
    if let Some(name) = matching.max_by_key(|name| name.len()) {
        let extra = &words[name.split(' ').count()..];
        // After an unknown flag a word may be its value; the flag is what is complained about.
        if let (Some(extra), false) = (extra.first(), unknown) {
            return Err(Failure::new(format!("unknown command {extra:?} for \"kubeadm {name}\"")));
        }
        return Ok(name.to_owned());
    }
    match words.first() {
        None => Err(Failure::new("subcommand is required")),
        Some(word) => Err(Failure::new(format!("unknown command {word:?} for \"kubeadm\""))),
    }
}

fn takes_value(name: &str) -> Option<bool> {
    let all = GLOBAL.iter().chain(COMMANDS.iter().flat_map(|(_, flags)| flags.iter()));
    let name = match name {
        "o" => "output",
        other => other,
    };
    all.into_iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

/// Parses the flags of a command.
///
/// # Errors
/// pflag's texts.
pub fn parse(command: &str, arguments: &[String]) -> Result<Flags, Failure> {
    let own = COMMANDS.iter().find(|(name, _)| *name == command).map_or(&[] as &[_], |(_, flags)| flags);
    let mut flags = Flags::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let Some(flag) = argument.strip_prefix('-').filter(|flag| !flag.is_empty()) else { continue };
        let (name, inline) = match flag.strip_prefix('-') {
            Some(long) => long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value))),
            None => shorthand(flag, command)?,
        };
        let Some((_, valued)) = own.iter().chain(GLOBAL).find(|(known, _)| *known == name) else {
            return Err(Failure::new(format!("unknown flag: --{name}")));
        };
        let value = match (inline, valued) {
            (Some(value), true) => value.to_owned(),
            (None, true) => {
                rest.next().ok_or_else(|| Failure::new(format!("flag needs an argument: --{name}")))?.clone()
            }
            (None, false) => "true".to_owned(),
            (Some(value @ ("true" | "false")), false) => value.to_owned(),
            (Some(value), false) => {
                return Err(Failure::new(format!(
                    "invalid argument {value:?} for \"--{name}\" flag: strconv.ParseBool: parsing {value:?}: invalid \
                     syntax"
                )));
            }
        };
        flags.values.insert(name.to_owned(), value);
    }
    Ok(flags)
}

fn shorthand<'a>(flag: &'a str, command: &str) -> Result<(&'a str, Option<&'a str>), Failure> {
    match (flag.chars().next().unwrap_or_default(), command) {
        ('o', "version") => Ok(("output", flag.get(1..).filter(|value| !value.is_empty()))),
        ('f', "reset") if flag.len() == 1 => Ok(("force", None)),
        ('v', _) => Ok(("v", flag.get(1..).map(|v| v.trim_start_matches('=')).filter(|value| !value.is_empty()))),
        (letter, _) => Err(Failure::new(format!("unknown shorthand flag: '{letter}' in -{flag}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(ToOwned::to_owned).collect()
    }

    #[test]
    fn commands_and_flags_are_found_wherever_they_stand() {
        for (line, name) in [
            ("init --config a", "init"),
            ("--rootfs /r init --config=a --skip-token-print", "init"),
            ("version -o short", "version"),
            ("version -ojson", "version"),
            ("config images list", "config images list"),
            ("reset -f --rootfs=/r", "reset"),
        ] {
            let command = command(&words(line)).expect(line);
            assert_eq!(command, name);
            parse(&command, &words(line)).expect(line);
        }
        let flags = parse("init", &words("--rootfs /r init --config=a --skip-token-print")).expect("flags");
        assert_eq!((flags.text("rootfs"), flags.text("config")), (Some("/r"), Some("a")));
        assert!(flags.is_set("skip-token-print"));
    }

    #[test]
    fn refusals_have_cobras_words() {
        for (line, text) in [
            ("init --token abc", "unknown flag: --token"),
            ("join --config", "flag needs an argument: --config"),
            ("reset -x", "unknown shorthand flag: 'x' in -x"),
            ("init --skip-token-print=maybe", "invalid argument \"maybe\" for \"--skip-token-print\" flag"),
            ("frobnicate", "unknown command \"frobnicate\" for \"kubeadm\""),
            ("init now", "unknown command \"now\" for \"kubeadm init\""),
        ] {
            let refused = command(&words(line)).and_then(|command| parse(&command, &words(line)));
            let message = refused.expect_err(line).message;
            assert!(message.starts_with(text), "{message}");
        }
    }
}
