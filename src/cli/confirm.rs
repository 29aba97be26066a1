//! Confirmation of what cannot be undone: on a terminal by typing a name, elsewhere by giving it on the command line.

use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::model::plain::plain_lines;
use std::io::{BufRead, IsTerminal, Write};

/// Shows `warning`, and goes on only when `name` was typed, or given with `--yes`. `attempted` reads after "failed to".
pub fn confirm(attempted: &str, warning: &str, name: &str, yes: Option<&str>) -> Outcome<()> {
    let refuse = |why: String| Failure::new(Cause::Usage, attempted, why);
    if let Some(given) = yes {
        return if given == name {
            Ok(())
        } else {
            Err(refuse(format!("--yes {given} is not {name}")).advise(format!("--yes {name}")))
        };
    }
    // A name out of the store may be in it.
    eprintln!("{}\n", plain_lines(warning));
    if !std::io::stdin().is_terminal() {
        let why = "it needs a confirmation, and standard input is not a terminal".to_owned();
        return Err(refuse(why).advise(format!("read the text above, then add --yes {name}")));
    }
    eprint!("Type {name} to go on: ");
    let _ = std::io::stderr().flush();
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    match read {
        Ok(_) if line.trim() == name => Ok(()),
        _ => Err(refuse("it was not confirmed".to_owned()).advise("nothing was changed")),
    }
}
