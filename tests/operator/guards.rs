//! What is refused, and that nothing was changed by it.

use std::fs;

use crate::desk::{Desk, PIN, SO_PIN};

#[test]
fn a_token_is_not_initialised_twice_by_accident_and_never_without_its_officer() {
    let desk = Desk::furnished();
    let init =
        |more: &[&str]| desk.signerctl(&[&["token", "init", "main", "--so-pin-file", "so-pin"][..], more].concat());
    init(&["--yes"]).fails(3, &["holds the initialised token `main`", "destroys every key", "--reinitialise"]);
    init(&["--yes", "--slot", "4711"]).fails(3, &["--reinitialise"]);
    init(&["--reinitialise"]).fails(1, &["Every key on the token `main` will be destroyed", "give --yes"]);
    desk.write("wrong", "not-the-officer\n", 0o400);
    let wrong = ["token", "init", "main", "--so-pin-file", "wrong", "--reinitialise", "--yes"];
    desk.signerctl(&wrong).fails(3, &["the security officer's PIN is wrong", "the attempt was counted"]);
    let objects = || desk.signerctl(&["token", "list", "main", "--objects", "--login"]);
    assert!(objects().succeeds().stdout.contains("release"), "the key is still there");
    init(&["--reinitialise", "--yes"]).succeeds();
    assert!(!objects().succeeds().stdout.contains("release"));
}

#[test]
fn pins_come_from_files_that_others_cannot_read_and_fit_the_token() {
    let desk = Desk::new();
    let init = |more: &[&str]| desk.signerctl(&[&["token", "init", "main", "--yes"][..], more].concat());
    desk.write("open", format!("{SO_PIN}\n"), 0o644);
    init(&["--so-pin-file", "open"]).fails(6, &["open to others (mode 0644)"]);
    desk.write("short", "12\n", 0o400);
    init(&["--so-pin-file", "short"]).fails(2, &["the security officer's PIN must have 4 to 255 bytes"]);
    init(&["--so-pin-file", "absent"]).fails(6, &["cannot read the PIN file absent"]);
    let label = "a label that is longer than thirty-two bytes";
    init(&["--so-pin-file", "so-pin", "--label", label]).fails(2, &["1 to 32 bytes"]);
    let list = desk.signerctl(&["token", "list", "main"]);
    assert!(list.succeeds().stdout.contains("(not initialised)") && !list.stdout.contains("main"), "{}", list.stdout);
    for option in ["--pin", "--so-pin"] {
        init(&[option, "1234"]).fails(2, &["unexpected argument"]);
    }
}

#[test]
fn a_module_can_be_looked_at_and_a_token_made_before_there_is_a_configuration() {
    let desk = Desk::new();
    let module = testkit::softhsm::find_module().unwrap().display().to_string();
    fs::remove_file(desk.path("signer.toml")).unwrap();
    desk.signerctl(&["token", "list", "--module", &module]).succeeds();
    desk.signerctl(&["token", "init", "--module", &module]).fails(2, &["--label"]);
    let init =
        ["token", "init", "--module", &module, "--label", "first one", "--so-pin-file", "so-pin", "--pin-file", "pin"];
    let made = desk.signerctl(&[&init[..], &["--yes"]].concat());
    assert!(made.succeeds().stdout.contains("uri = \"pkcs11:token=first%20one;serial="), "{}", made.stdout);
    let again = desk.signerctl(&[&init[..], &["--yes", "--slot", "1"]].concat());
    again.fails(3, &["is labelled `first one` already", "choose another --label"]);
    desk.signerctl(&["token", "list", "--module", "/bin/true"]).fails(6, &["cannot load the PKCS#11 module"]);
    desk.signerctl(&["token", "list", "--module", &module, "--signer-token", "/nonexistent"])
        .fails(6, &["--signer-token"]);
}

#[test]
fn no_two_objects_of_one_name_are_made() {
    let desk = Desk::furnished();
    let generate = |name: &str, more: &[&str]| {
        desk.signerctl(&[&["keys", "generate", name, "--token", "main"][..], more].concat())
    };
    generate("release", &[]).fails(2, &["has a key `release` already"]);
    generate("second", &["--id", "01"]).fails(3, &["already has a private key with label `release` and id 01"]);
    generate("second", &["--label", "release"]).fails(3, &["already has a private key", "choose another"]);
    generate("a/b", &[]).fails(2, &["is no name for a key"]);
    generate("second", &["--id", "0"]).fails(2, &["hex"]);
    generate("second", &["--public-key", "release.pub"]).fails(6, &["exists"]);
    desk.signerctl(&["keys", "generate", "x", "--token", "mian"]).fails(2, &["no token `mian`"]);
    let objects = desk.signerctl(&["token", "list", "main", "--objects", "--login", "--json"]).json();
    assert_eq!(objects["objects"].as_array().unwrap().len(), 2, "one pair: {objects:#}");
}

#[test]
fn a_change_that_the_loader_would_refuse_is_never_in_force() {
    let desk = Desk::furnished();
    desk.signerctl(&["keys", "generate", "fresh", "--token", "main", "--id", "02"]).succeeds();
    let with_next =
        "[keys.fresh]\ntoken = \"main\"\nuri = \"pkcs11:object=fresh;id=%02\"\nstate = \"next\"\n[tenants.acme]";
    desk.change("[tenants.acme]", with_next);
    let rotate = |more: &[&str]| desk.signerctl(&[&["keys", "rotate", "fresh", "--yes"][..], more].concat());
    rotate(&[]).fails(1, &["no tenant lists key `fresh`"]);
    desk.change("keys = [\"release\"]", "keys = [\"release\", \"fresh\"]");
    rotate(&["--at", "2020-01-01T00:00:00Z"]).fails(2, &["has passed"]);
    desk.signerctl(&["keys", "rotate", "release", "--yes"]).fails(1, &["signer.toml:", "only a `next` key"]);

    // Another tenant signs with the old key and would be left without one.
    let both = format!("{}[tenants.other]\nkeys = [\"release\"]\npredicate_types = [\"*\"]\n", desk.config());
    let one = desk.config();
    desk.configure(&both);
    rotate(&[]).fails(1, &["tenant `other` signs with `release` and does not list `fresh`", "signer.toml:"]);
    desk.configure(&one);

    // A later drop-in says something else: the change would do nothing.
    fs::create_dir(desk.path("signer.toml.d")).unwrap();
    desk.write("signer.toml.d/99-local.toml", "keys.fresh.state = \"next\"\n", 0o644);
    rotate(&[]).fails(1, &["99-local.toml:1:", "keys.fresh.state"]);
    fs::remove_file(desk.path("signer.toml.d/99-local.toml")).unwrap();

    // A pinned key that is not the token's.
    desk.change(
        "state = \"next\"",
        &format!("state = \"next\"\npublic_key = \"{}\"", desk.path("release.pub").display()),
    );
    rotate(&[]).fails(1, &["is pinned to SHA256:", "the token has SHA256:"]);
    assert!(!desk.path("signer.toml.d/90-keys.toml").exists(), "nothing was written");

    // With a moment to come, both are published and the old one signs until then.
    desk.configure(&one);
    let report = rotate(&["--at", "2099-01-01T00:00:00Z", "--json"]);
    let changes = report.succeeds().json()["changes"].to_string();
    for change in
        ["keys.fresh.not_before", "keys.release.not_after", "keys.release.public_key", "keys.fresh.public_key"]
    {
        assert!(changes.contains(change), "{change} is not in {changes}");
    }
    desk.signerctl(&["config", "check", "--no-files"]).succeeds();
    desk.signerctl(&["keys", "retire", "release", "--yes"]).fails(1, &["signs until 2099-01-01T00:00:00Z"]);
    desk.run("openssl", &["pkey", "-pubin", "-in", "keys/fresh.pub", "-noout"]);
    assert_eq!(desk.read("keys/release.pub"), desk.read("release.pub"));
}

#[test]
fn what_is_in_force_is_taken_back_when_the_files_behind_it_are_wrong() {
    let desk = Desk::furnished();
    desk.signerctl(&["keys", "generate", "fresh", "--token", "main", "--id", "02"]).succeeds();
    let with_next =
        "[keys.fresh]\ntoken = \"main\"\nuri = \"pkcs11:object=fresh;id=%02\"\nstate = \"next\"\n[tenants.acme]";
    desk.change("[tenants.acme]\nkeys = [\"release\"]", &format!("{with_next}\nkeys = [\"release\", \"fresh\"]"));
    fs::create_dir(desk.path("signer.toml.d")).unwrap();
    desk.write("signer.toml.d/90-keys.toml", "# mine\n[keys.release]\nstate = \"active\"\n", 0o644);
    // The appliance would not start: its certificate is gone.
    fs::remove_file(desk.path("tls.pem")).unwrap();
    desk.signerctl(&["keys", "rotate", "fresh", "--yes"]).fails(5, &["server.tls.certificate"]);
    assert_eq!(desk.read("signer.toml.d/90-keys.toml"), "# mine\n[keys.release]\nstate = \"active\"\n");
    assert_eq!(fs::read_dir(desk.path("signer.toml.d")).unwrap().count(), 1, "no part file stays");
}

#[test]
fn a_request_for_nobody_or_a_key_that_is_not_there_is_refused() {
    let desk = Desk::furnished();
    let csr = |key: &str, subject: &str, more: &[&str]| {
        desk.signerctl(&[&["keys", "csr", key, "--subject", subject][..], more].concat())
    };
    csr("release", "release", &[]).fails(2, &["--subject", "CN="]);
    csr("release", "CN=a", &["--san", "a.example"]).fails(2, &["--san", "DNS:"]);
    csr("absent", "CN=a", &[]).fails(2, &["no key `absent`", "release"]);
    desk.change("pkcs11:object=release;id=%01", "pkcs11:object=absent");
    csr("release", "CN=a", &["--output", "x.csr"]).fails(1, &["no private key matches"]);
    assert!(!desk.path("x.csr").exists());
}

#[test]
fn a_key_whose_public_half_is_kept_nowhere_is_not_deleted() {
    let desk = Desk::furnished();
    desk.foreign_key("private only", "05", &["--sensitive"]);
    let retired =
        "[keys.old]\ntoken = \"main\"\nuri = \"pkcs11:object=private%20only\"\nstate = \"retired\"\n[tenants.acme]";
    desk.change("[tenants.acme]", retired);
    desk.pkcs11_tool(&["--delete-object", "--type", "pubkey", "--label", "private only"]);
    desk.signerctl(&["keys", "delete", "old", "--yes"])
        .fails(1, &["is known nowhere but in the token", "keys.old.public_key"]);
    desk.signerctl(&["keys", "export"]).fails(1, &["the public half of `old` is known nowhere", "signer.toml:"]);
    desk.foreign_key("another one", "06", &["--sensitive"]);
    desk.change("private%20only", "another%20one");
    // Pinned to another key than the token's: the URI is wrong, and the object is somebody else's.
    desk.change(
        "state = \"retired\"",
        &format!("state = \"retired\"\npublic_key = \"{}\"", desk.path("release.pub").display()),
    );
    desk.signerctl(&["keys", "delete", "old", "--yes"]).fails(1, &["another key, which is left alone"]);
    desk.signerctl(&["keys", "delete", "release", "--yes"]).fails(1, &["is active", "signer.toml:"]);
    let objects = desk.signerctl(&["token", "list", "main", "--objects", "--login"]);
    for (label, left) in [("private only", 1), ("another one", 2), ("release", 2)] {
        assert_eq!(objects.succeeds().stdout.matches(label).count(), left, "{label}: {}", objects.stdout);
    }
}

#[test]
fn the_token_that_is_destroyed_is_the_one_that_the_question_names() {
    let desk = Desk::furnished();
    let init = |more: &[&str]| {
        desk.signerctl(&[&["token", "init", "main", "--so-pin-file", "so-pin", "--reinitialise"][..], more].concat())
    };
    let slots = desk.signerctl(&["token", "list", "main", "--json"]).json();
    let main = slots["slots"].as_array().unwrap().iter().find(|slot| slot["token"]["label"] == "main").unwrap().clone();
    let (slot, serial) = (main["id"].to_string(), main["token"]["serial"].as_str().unwrap().to_owned());
    init(&["--slot", &slot, "--label", "other"])
        .fails(1, &["Every key on the token `main` will be destroyed", &serial, "becomes the token `other`", "--yes"]);

    // The child does not take the parent's word for it.
    let admin = |serial: &[&str]| {
        let (token, config) = (env!("CARGO_BIN_EXE_signer-token"), desk.path("signer.toml").display().to_string());
        let init =
            ["admin", "--config", &config, "--name", "main", "init", "--label", "main", "--so-pin-file", "so-pin"];
        let output = desk.command(token).args(init).arg("--reinitialise").args(serial).output().unwrap();
        crate::desk::Run::from(output)
    };
    for other in [&[][..], &["--expect-serial", "4711"]] {
        let run = admin(other);
        assert!(run.code == 1 && run.stdout.contains("\"other_token\""), "{run:?}");
    }

    // Nor is it one that the configuration does not mean.
    desk.change("pkcs11:token=main", "pkcs11:token=main;serial=4711");
    init(&["--yes"]).fails(2, &["signer.toml:", "names serial 4711", &serial, "left alone"]);
    desk.change("pkcs11:token=main;serial=4711", "pkcs11:token=main");
    let objects = desk.signerctl(&["token", "list", "main", "--objects", "--login"]);
    assert!(objects.succeeds().stdout.contains("release"), "the key is still there");
    init(&["--slot", &slot, "--yes"]).succeeds();
}

#[test]
fn a_key_that_another_name_still_needs_is_not_deleted_and_no_other_key_in_its_place() {
    let desk = Desk::furnished();
    let twice = format!(
        "[keys.old]\ntoken = \"main\"\nuri = \"pkcs11:object=release\"\nstate = \"retired\"\npublic_key = \"{}\"\n\
         [tenants.acme]",
        desk.path("release.pub").display()
    );
    desk.change("[tenants.acme]", &twice);
    desk.signerctl(&["keys", "delete", "old", "--yes"]).fails(1, &["key `release` is this very key", "signer.toml:"]);

    // The public key object that the URI finds is not always the private key's: the child looks behind the login.
    desk.foreign_key("victim", "07", &["--sensitive"]);
    let (token, config) = (env!("CARGO_BIN_EXE_signer-token"), desk.path("signer.toml").display().to_string());
    let delete = ["admin", "--config", &config, "--name", "main", "delete", "--uri", "pkcs11:object=victim"];
    let another = point(&desk.read("release.pub"));
    let run: crate::desk::Run = desk.command(token).args(delete).args(["--expect", &another]).output().unwrap().into();
    assert!(run.code == 1 && run.stdout.contains("\"other_key\"") && run.stdout.contains("left alone"), "{run:?}");
    desk.pkcs11_tool(&["--delete-object", "--type", "pubkey", "--label", "victim"]);
    // Without a public half it is recognised by what it signs.
    let run: crate::desk::Run = desk.command(token).args(delete).args(["--expect", &another]).output().unwrap().into();
    assert!(run.code == 1 && run.stdout.contains("by its signature") && run.stdout.contains("left alone"), "{run:?}");
    let objects = desk.signerctl(&["token", "list", "main", "--objects", "--login"]);
    for (label, left) in [("victim", 1), ("release", 2)] {
        assert_eq!(objects.succeeds().stdout.matches(label).count(), left, "{label}: {}", objects.stdout);
    }
}

#[test]
fn a_certificate_goes_beside_its_key_and_no_other_keys_certificate_goes() {
    let desk = Desk::furnished();
    desk.signerctl(&["keys", "csr", "release", "--subject", "CN=r", "--output", "r.csr"]).succeeds();
    desk.certificate_authority("ca");
    desk.issue("ca", "r.csr", "r.pem", "9");
    desk.run("openssl", &["x509", "-in", "ca.pem", "-outform", "DER", "-out", "ca.der"]);
    desk.pkcs11_tool(&["--write-object", "ca.der", "--type", "cert", "--id", "01", "--label", "foreign"]);
    let import = |more: &[&str]| {
        let import = ["keys", "import-cert", "release", "--chain", "r.pem", "--to", "chain.pem", "--yes"];
        desk.signerctl(&[&import[..], more].concat())
    };
    import(&["--into-token"]).succeeds();
    import(&["--into-token"]).succeeds();
    let objects = desk.signerctl(&["token", "list", "main", "--objects", "--login"]).succeeds().stdout.clone();
    assert_eq!(objects.matches("certificate").count(), 2, "one of the key, and the foreign one: {objects}");
    assert!(objects.contains("foreign"), "{objects}");

    // A native YubiHSM shows nothing without a login; the history knows the key.
    let text = desk.config();
    let of_module =
        |line: &&str| ["module =", "uri = \"pkcs11:token=main\""].iter().any(|start| line.starts_with(start));
    let text: Vec<&str> = text.lines().filter(|line| !of_module(line)).collect();
    let device = "connector = \"http://127.0.0.1:1\"\nserial = 7550140\nauth_key = 2\npin_file =";
    desk.configure(&text.join("\n").replacen("pin_file =", device, 1));
    desk.change("pkcs11:object=release;id=%01", "pkcs11:id=%00%01");
    import(&[]).succeeds();
    import(&["--into-token"]).fails(4, &["cannot be reached"]);
}

/// The public point of a key, hex, from its PEM.
fn point(pem: &str) -> String {
    let key = stellaops_signer::custody::PublicKey::from_pem(pem.as_bytes()).unwrap();
    key.sec1().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_pin_that_the_token_refused_is_presented_by_no_command_again() {
    let desk = Desk::furnished();
    desk.write("pin", "wrong-and-tried-once\n", 0o400);
    let refused_before = &["the PIN was not presented", "has refused the PIN"];
    desk.signerctl(&["token", "list", "main", "--objects", "--login"]).fails(3, &["refused the PIN"]);
    desk.signerctl(&["token", "list", "main", "--objects", "--login"]).fails(3, refused_before);
    // A person who names or types it is told the same.
    desk.signerctl(&["keys", "csr", "release", "--subject", "CN=r", "--pin-file", "pin"]).fails(3, refused_before);
    let doctor = desk.signerctl(&["token", "doctor", "main", "--login"]);
    assert!(doctor.stdout.contains("the PIN was not presented"), "{}", doctor.stdout);

    // Nor does a worker that is started now.
    let memory = desk.read("state/main.pins.json");
    assert!(memory.contains("\"refused\"") && !memory.contains("wrong-and-tried-once"), "{memory}");
    let conformance = || {
        let module = fs::canonicalize(testkit::softhsm::find_module().unwrap()).unwrap();
        let module = module.display().to_string();
        let run = ["token", "conformance", "--token", "main", "--generate", "--pin-file", "pin", "--module", &module];
        desk.signerctl(&run)
    };
    let run = conformance();
    assert!(run.code != 0 && run.stdout.contains("the PIN was not presented"), "{run:?}");

    // What conformance finds refused, everybody knows; the right one goes on as before.
    desk.write("pin", "another-wrong-one\n", 0o400);
    assert!(conformance().stdout.contains("the token refused the PIN"));
    desk.signerctl(&["token", "list", "main", "--objects", "--login"]).fails(3, refused_before);
    desk.write("pin", format!("{PIN}\n"), 0o400);
    desk.signerctl(&["token", "list", "main", "--objects", "--login", "--pin-file", "pin"]).succeeds();
}

#[test]
fn where_the_memory_of_pins_cannot_be_had_no_pin_is_presented() {
    let desk = Desk::furnished();
    desk.write("state/main.pins.json", "damaged", 0o600);
    desk.signerctl(&["token", "list", "main", "--objects", "--login"]).fails(3, &["cannot be read", "main.pins.json"]);
    desk.signerctl(&["token", "list", "main", "--objects"]).succeeds();
    // Somebody else could make the worker forget.
    desk.write("state/main.pins.json", "", 0o600);
    fs::set_permissions(desk.path("state"), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    desk.signerctl(&["token", "list", "main", "--objects", "--login"]).fails(3, &["has mode 0777", "chmod 0700"]);
}

#[test]
fn a_pin_that_a_new_token_was_given_is_right_whatever_was_wrong_before() {
    let desk = Desk::furnished();
    let init = ["token", "init", "main", "--so-pin-file", "wrong", "--reinitialise", "--yes"];
    desk.write("wrong", "not-the-officer\n", 0o400);
    desk.signerctl(&init).fails(3, &["the security officer's PIN is wrong"]);
    desk.signerctl(&init).fails(3, &["the PIN was not presented"]);
}
