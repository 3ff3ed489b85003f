//! Asking before something is destroyed or put in force.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use super::error::CtlError;

/// Goes on only when the operator types `expected`, or gave `--yes`.
pub(crate) fn by_typing(expected: &str, consequence: &str, yes: bool) -> Result<(), CtlError> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(CtlError::Declined(format!(
            "{consequence}. Nobody can be asked here, so nothing was done; give --yes"
        )));
    }
    let mut err = io::stderr().lock();
    // What is asked goes to standard error: standard output may carry JSON.
    let _ = write!(err, "{consequence}.\nType `{expected}` to go on: ").and_then(|()| err.flush());
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(|error| CtlError::read("-".as_ref(), error))?;
    if line.trim_end_matches(['\r', '\n']) == expected {
        Ok(())
    } else {
        Err(CtlError::Declined(format!("that was not `{expected}`; nothing was done")))
    }
}
