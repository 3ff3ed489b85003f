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

/// The device refuses to destroy an object: what is gone is the private key, and the rest goes with the next run.
#[test]
fn a_key_that_is_half_destroyed_is_destroyed_by_the_same_command() {
    let desk = troubled(|_| {});
    desk.retire_release();
    let file = desk.path("device.json");
    let refuses = |after: u64| {
        let refusal =
            Fault::on(Function::C_DestroyObject).after(after).once().returns(faulty_token::ckr::CKR_DEVICE_ERROR);
        StateFile::at(&file).update(|device| device.faults = vec![refusal.persistent()]).unwrap();
    };
    let objects = || {
        let listed = desk.signerctl(&["token", "list", "main", "--objects", "--login", "--json"]).succeeds().json();
        let classes = listed["objects"].as_array().unwrap().iter().map(|o| o["class"].as_str().unwrap().to_owned());
        classes.collect::<Vec<_>>()
    };
    let delete = |more: &[&str]| desk.signerctl(&[&["keys", "delete", "release", "--yes"], more].concat());

    // The private key resists: nothing is gone, and its public half still tells which one it is.
    refuses(0);
    delete(&[]).fails(4, &["C_DestroyObject"]);
    assert_eq!(objects(), ["private key", "public key"]);
    // It goes, and then the device refuses.
    refuses(1);
    delete(&[]).fails(4, &["private key destroyed, the rest is still on the token; run the command again"]);
    assert_eq!(objects(), ["public key"]);
    let rest = delete(&["--json"]).succeeds().json();
    assert_eq!(rest["destroyed"].as_array().unwrap().len(), 1, "{rest:#}");
    assert_eq!(rest["destroyed"][0]["class"], "public key");
    assert!(objects().is_empty());
    delete(&[]).fails(1, &["no private key matches"]);
}

/// As an older version left it: the public half is gone, the private key resisted.
#[test]
fn a_private_key_without_its_public_half_is_recognised_by_a_signature_and_destroyed() {
    let desk = Desk::furnished();
    desk.pkcs11_tool(&["--delete-object", "--type", "pubkey", "--label", "release"]);
    desk.retire_release();
    let gone = desk.signerctl(&["keys", "delete", "release", "--yes", "--json"]).succeeds().json();
    assert_eq!(gone["destroyed"][0]["class"], "private key", "{gone:#}");
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
