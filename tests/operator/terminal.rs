//! What is asked on a terminal: confirmations by typing, PINs without echo. `script` of util-linux is the terminal.

use std::io::Write as _;
use std::process::Stdio;

use crate::desk::{Desk, PIN, Run, SO_PIN};

/// Runs `signerctl` on a terminal and types these lines. What the terminal showed is standard output.
fn on_a_terminal(desk: &Desk, arguments: &str, lines: &[&str]) -> Run {
    let command = format!("{} {arguments}", env!("CARGO_BIN_EXE_signerctl"));
    let mut script = desk.command("script");
    script.args(["--quiet", "--return", "--echo", "never", "--command", &command, "/dev/null"]);
    let mut script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let typed: String = lines.iter().map(|line| format!("{line}\n")).collect();
    script.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    script.wait_with_output().unwrap().into()
}

#[test]
fn a_token_is_initialised_by_typing_its_label_and_pins_that_are_not_shown() {
    let desk = Desk::new();
    std::fs::remove_file(desk.path("pin")).unwrap();
    let refused = on_a_terminal(&desk, "token init main", &["mian"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stdout.contains("that was not `main`; nothing was done"), "{}", refused.stdout);

    let unlike = on_a_terminal(&desk, "token init main", &["main", SO_PIN, "another", PIN, PIN]);
    assert_eq!(unlike.code, 6, "{unlike:?}");
    assert!(unlike.stdout.contains("the two are not the same"), "{}", unlike.stdout);

    let done = on_a_terminal(&desk, "token init main", &["main", SO_PIN, SO_PIN, PIN, PIN]);
    done.succeeds();
    for asked in
        ["Type `main` to go on:", "new security officer's PIN:", "new user PIN, once more:", "is ready in slot"]
    {
        assert!(done.stdout.contains(asked), "`{asked}` is not in:\n{}", done.stdout);
    }

    // The PIN that was typed is the token's.
    let listed = on_a_terminal(&desk, "token list main --objects --login", &[PIN]);
    assert!(listed.succeeds().stdout.contains("PIN of token `main`:"), "{}", listed.stdout);
    desk.signerctl(&["token", "list", "main", "--objects", "--login"]).fails(6, &["nobody can be asked", "--pin-file"]);
}
