#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt as _;

use super::*;

struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// As a new process opens it.
    fn memory(&self) -> PinMemory {
        PinMemory::open(&self.0.path().join("state"), "main", true).unwrap()
    }

    fn pin(&self, pin: &str) -> Pin {
        let path = self.0.path().join("pin");
        let _ = fs::remove_file(&path);
        fs::write(&path, pin).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        Pin::read(&path).unwrap()
    }

    fn attempt(&self, pin: &str, flags: PinState) -> Result<Mark, PinMemoryError> {
        self.memory().attempt(&self.pin(pin), "4711", flags)
    }

    fn ends(&self, pin: &str, outcome: Outcome) {
        let mark = self.attempt(pin, PinState::Good).unwrap();
        self.memory().resolve(&mark, outcome).unwrap();
    }
}

#[test]
fn a_refused_pin_is_not_presented_again_by_any_later_process() {
    let desk = Desk::new();
    desk.ends("1111", Outcome::Refused);
    for flags in [PinState::Good, PinState::CountLow] {
        assert!(matches!(desk.attempt("1111", flags), Err(PinMemoryError::Refused(_))));
    }
    desk.ends("2222", Outcome::Accepted);
    assert!(matches!(desk.attempt("1111", PinState::Good), Err(PinMemoryError::Refused(_))), "still");
    desk.memory().attempt(&desk.pin("1111"), "another serial number", PinState::Good).unwrap();
}

#[test]
fn an_interrupted_attempt_is_repeated_only_while_the_token_says_that_it_counted_none() {
    let desk = Desk::new();
    desk.attempt("1111", PinState::Good).unwrap();
    // The process dies here; the next one finds an attempt without an end.
    assert!(matches!(desk.attempt("1111", PinState::CountLow), Err(PinMemoryError::Unclear(_))));
    let desk = Desk::new();
    desk.attempt("1111", PinState::Good).unwrap();
    desk.attempt("1111", PinState::Good).unwrap();
    assert!(matches!(desk.attempt("1111", PinState::Good), Err(PinMemoryError::Unclear(_))), "never a third time");
}

#[test]
fn a_pin_that_the_token_took_before_outlives_unclear_attempts() {
    let desk = Desk::new();
    desk.ends("1111", Outcome::Accepted);
    for _ in 0..2 {
        for _ in 0..4 {
            desk.ends("1111", Outcome::Unclear);
        }
        let counted = desk.attempt("1111", PinState::CountLow);
        assert!(matches!(counted, Err(PinMemoryError::Unclear(_))), "unless the token counts");
        desk.ends("1111", Outcome::Accepted);
    }
    desk.ends("1111", Outcome::Refused);
    assert!(matches!(desk.attempt("1111", PinState::Good), Err(PinMemoryError::Refused(_))));
}

#[test]
fn even_a_known_pin_is_not_presented_for_ever_and_less_often_where_the_token_does_not_warn() {
    for (warns, most) in [(true, 5), (false, 2)] {
        let desk = Desk::new();
        desk.ends("1111", Outcome::Accepted);
        let memory = || PinMemory::open(&desk.0.path().join("state"), "main", warns).unwrap();
        for _ in 0..most {
            let mark = memory().attempt(&desk.pin("1111"), "4711", PinState::Good).unwrap();
            memory().resolve(&mark, Outcome::Unclear).unwrap();
        }
        let further = memory().attempt(&desk.pin("1111"), "4711", PinState::Good);
        assert!(matches!(further, Err(PinMemoryError::Unclear(_))), "{warns}: {further:?}");
    }
}

#[test]
fn between_unclear_attempts_with_a_known_pin_there_is_a_pause_that_grows() {
    let desk = Desk::new();
    desk.ends("1111", Outcome::Accepted);
    desk.ends("1111", Outcome::Unclear);
    let mut memory = desk.memory();
    let mark = memory.attempt(&desk.pin("1111"), "4711", PinState::Good).unwrap();
    memory.resolve(&mark, Outcome::Unclear).unwrap();
    match memory.attempt(&desk.pin("1111"), "4711", PinState::Good) {
        Err(PinMemoryError::Later(left)) => assert!(left > FIRST_PAUSE && left <= FIRST_PAUSE * 2, "{left:?}"),
        other => panic!("{other:?}"),
    }
    memory.attempt(&desk.pin("2222"), "4711", PinState::Good).unwrap();
}

#[test]
fn a_refused_pin_that_could_not_be_written_down_is_not_presented_again_either() {
    let desk = Desk::new();
    let mut memory = desk.memory();
    let mark = memory.attempt(&desk.pin("1111"), "4711", PinState::Good).unwrap();
    let file = desk.0.path().join("state/main.pins.json");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert!(memory.resolve(&mark, Outcome::Refused).is_err());
    fs::remove_dir(&file).unwrap();
    let again = memory.attempt(&desk.pin("1111"), "4711", PinState::Good);
    assert!(matches!(again, Err(PinMemoryError::Refused(_))), "{again:?}");
    assert!(matches!(desk.attempt("1111", PinState::Good), Err(PinMemoryError::Refused(_))), "written down by now");
}

#[test]
fn an_attempt_that_the_token_did_not_look_at_leaves_no_trace() {
    let desk = Desk::new();
    for _ in 0..5 {
        desk.ends("1111", Outcome::NotTried);
    }
    desk.ends("1111", Outcome::Unclear);
    desk.ends("1111", Outcome::NotTried);
    desk.ends("1111", Outcome::Unclear);
    assert!(matches!(desk.attempt("1111", PinState::Good), Err(PinMemoryError::Unclear(_))), "two, as before");
}

#[test]
fn neither_a_pin_nor_what_it_is_found_by_at_once_is_written() {
    let (desk, other) = (Desk::new(), Desk::new());
    desk.ends("739114", Outcome::Refused);
    other.ends("739114", Outcome::Refused);
    let written = |desk: &Desk| fs::read_to_string(desk.0.path().join("state/main.pins.json")).unwrap();
    assert!(!written(&desk).contains("739114"));
    assert_ne!(written(&desk), written(&other), "the mark is this installation's own");
    for file in ["main.pins.json", "main.pins.key"] {
        let mode = fs::metadata(desk.0.path().join("state").join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{file}");
    }
    assert_eq!(fs::metadata(desk.0.path().join("state")).unwrap().permissions().mode() & 0o7777, 0o700);
}

#[test]
fn without_its_memory_no_pin_is_presented() {
    let desk = Desk::new();
    desk.ends("1111", Outcome::Accepted);
    let file = desk.0.path().join("state/main.pins.json");
    for damaged in ["", "{}", r#"{"version":2,"pins":[]}"#, "\0\0\0"] {
        fs::write(&file, damaged).unwrap();
        assert!(matches!(desk.attempt("1111", PinState::Good), Err(PinMemoryError::Damaged(_))), "{damaged:?}");
    }
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert!(matches!(desk.attempt("1111", PinState::Good), Err(PinMemoryError::Io { .. })));
    fs::set_permissions(desk.0.path().join("state"), fs::Permissions::from_mode(0o770)).unwrap();
    let open = PinMemory::open(&desk.0.path().join("state"), "main", true);
    assert!(matches!(open, Err(PinMemoryError::Open { mode: 0o770, .. })), "others could make it forget");
    let nowhere = PinMemory::open(Path::new("/dev/null/state"), "main", true);
    assert!(matches!(nowhere, Err(PinMemoryError::Io { .. })));
}

#[test]
fn two_processes_do_not_present_a_pin_at_the_same_time() {
    let desk = Desk::new();
    let mut first = desk.memory();
    let mark = first.attempt(&desk.pin("1111"), "4711", PinState::Good).unwrap();
    assert!(matches!(desk.attempt("2222", PinState::Good), Err(PinMemoryError::Busy(_))));
    first.resolve(&mark, Outcome::Refused).unwrap();
    assert!(matches!(desk.attempt("1111", PinState::Good), Err(PinMemoryError::Refused(_))));
    desk.ends("2222", Outcome::Accepted);
}

#[test]
fn a_pin_that_the_token_was_set_to_is_no_longer_a_refused_one() {
    let desk = Desk::new();
    desk.ends("1111", Outcome::Refused);
    desk.memory().set(&desk.pin("1111"), "another").unwrap();
    assert!(matches!(desk.attempt("1111", PinState::Good), Err(PinMemoryError::Refused(_))));
    desk.memory().set(&desk.pin("1111"), "4711").unwrap();
    desk.ends("1111", Outcome::Accepted);
}

#[test]
fn a_link_in_the_place_of_what_is_written_is_not_followed() {
    let desk = Desk::new();
    desk.ends("1111", Outcome::Accepted);
    let victim = desk.0.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    std::os::unix::fs::symlink(&victim, desk.0.path().join("state/main.pins.new")).unwrap();
    desk.ends("2222", Outcome::Refused);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    assert!(matches!(desk.attempt("2222", PinState::Good), Err(PinMemoryError::Refused(_))));
}
