//! `token doctor` on devices that are in trouble, which SoftHSM2 never is: the fault-injecting module stands in front.

use std::fs;
use std::time::Duration;

use faulty_token::{Condition, Crash, Fault, Function, Says, State, StateFile};
use testkit::softhsm::find_module;

use crate::desk::Desk;
use crate::doctor::finds;

/// A furnished desk whose module is the fault-injecting one, in this state.
fn troubled(state: impl FnOnce(&mut State)) -> Desk {
    let desk = Desk::furnished();
    let module = fs::canonicalize(find_module().unwrap()).unwrap().display().to_string();
    desk.change(&module, &faulty_token::module_path().unwrap().display().to_string());
    desk.set_env(faulty_token::MODULE_VARIABLE, &module);
    let file = desk.path("device.json");
    StateFile::at(&file).update(state).unwrap();
    desk.set_env(faulty_token::STATE_VARIABLE, &file.display().to_string());
    desk
}

#[test]
fn a_pin_that_is_locked_or_nearly_is_not_tried() {
    let desk = troubled(|device| device.pin.failed = 3);
    let words = ["CKF_USER_PIN_LOCKED", "vendor's tool"];
    finds(&desk, &[], "PIN state", "pin_file", "tokens.main.pin_file", &words);
    let run = desk.signerctl(&["token", "list", "main"]);
    assert!(run.succeeds().stdout.contains("user PIN locked"), "{}", run.stdout);

    let file = desk.path("device.json");
    StateFile::at(&file).update(|device| device.pin.failed = 1).unwrap();
    // What is configured may be the PIN that was wrong; a PIN that is named is somebody's decision.
    desk.signerctl(&["token", "list", "main", "--objects", "--login"])
        .fails(3, &["CKF_USER_PIN_COUNT_LOW", "--pin-file"]);
    desk.signerctl(&["token", "list", "main", "--objects", "--login", "--pin-file", "pin"]).succeeds();
    let device = StateFile::at(&file).read().unwrap();
    assert_eq!((device.pin.attempts, device.pin.accepted), (1, 1));
}

#[test]
fn more_sessions_than_the_token_has() {
    let desk = troubled(|device| device.conditions.push(Condition::SessionLimit { sessions: 2 }));
    finds(
        &desk,
        &[],
        "sessions",
        "sessions",
        "tokens.main.sessions",
        &["3 sessions are configured", "write at most 2"],
    );
}

#[test]
fn a_module_that_crashes_or_hangs_takes_nobody_with_it() {
    for (fault, words) in [
        (Fault::on(Function::C_OpenSession).crashes(Crash::Segv), ["SIGSEGV", "while slots and tokens were looked at"]),
        (Fault::on(Function::C_FindObjectsInit).hangs(), ["did not return in 1s", "while objects were looked at"]),
    ] {
        let desk = troubled(|device| device.faults.push(fault.persistent()));
        finds(&desk, &["--patience", "1s"], "module", "module", "tokens.main.module", &words);
    }
    let desk = troubled(|device| {
        device.faults.push(Fault::on(Function::C_GetTokenInfo).delayed(Duration::from_millis(300)).persistent());
    });
    // Slow is not hanging.
    let run = desk.signerctl(&["token", "doctor", "main", "--patience", "20s"]);
    assert!(run.stdout.contains("ok       token"), "{}", run.stdout);
}

#[test]
fn a_device_that_makes_another_key_than_asked_for_keeps_none() {
    let lie = Condition::Lie {
        attribute: faulty_token::attribute::CKA_NEVER_EXTRACTABLE,
        says: Says::Bool(false),
        class: None,
        label: None,
    };
    let desk = troubled(|device| device.conditions.push(lie));
    let words = ["CKA_NEVER_EXTRACTABLE is false, must be true", "it was destroyed again"];
    desk.signerctl(&["keys", "generate", "second", "--token", "main"]).fails(3, &words);
    let objects = desk.signerctl(&["token", "list", "main", "--objects", "--login", "--json"]).json();
    let labels: Vec<&str> =
        objects["objects"].as_array().unwrap().iter().map(|o| o["label"].as_str().unwrap()).collect();
    assert_eq!(labels, ["release", "release"], "the new key is gone, the old one stays");
    assert!(!desk.read("audit/key-history.jsonl").contains("second"));
}
