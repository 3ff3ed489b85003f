//! The token signs, and signs wrongly.

use std::time::{Duration, Instant};

use faulty_token::{Attribute, Condition, Corruption, Event, Fault, Function, Says, attribute};

use crate::table::Recovered;
use crate::world::{LONG, RECOVERED, World};

#[test]
fn a_signature_in_a_rare_shape_is_as_good_as_any() {
    let world = World::start("odd signature");
    for (name, how) in
        [("both numbers with their high bit set", Corruption::HighBits), ("a short r", Corruption::ShortR)]
    {
        let first = world.load.count();
        world.row(name, RECOVERED, |world| spoilt(world, how, 20));
        assert!(world.load.since(first).iter().all(|asked| asked.signed), "{name}: it was refused");
    }
    world.finish();
}

#[test]
fn a_wrong_signature_never_leaves_and_its_key_waits_for_an_operator() {
    let world = World::start("wrong signature");
    for (name, how) in [
        ("a bit is flipped", Corruption::FlipBit),
        ("over another digest", Corruption::OtherDigest),
        ("by another key", Corruption::OtherKey),
        ("the one given out before", Corruption::Previous),
        ("all zero", Corruption::AllZero),
        ("r is the order of the curve", Corruption::ROutOfRange),
        ("s is the order of the curve", Corruption::SOutOfRange),
        ("truncated to 63 bytes", Corruption::Resize(63)),
        ("filled up to 65 bytes", Corruption::Resize(65)),
        ("truncated to 32 bytes", Corruption::Resize(32)),
        ("of no bytes", Corruption::Resize(0)),
        ("filled up to 128 bytes", Corruption::Resize(128)),
    ] {
        let first = world.load.count();
        spoilt(&world, how, 1);
        let began = Instant::now();
        let refused = || world.load.since(first).iter().filter(|asked| !asked.signed).count();
        while refused() < 200 {
            assert!(began.elapsed() < LONG, "{name}: the key still signs");
            std::thread::sleep(Duration::from_millis(5));
        }
        let last_signed = world.load.since(first).iter().filter(|asked| asked.signed).map(|asked| asked.ended).max();
        assert!(last_signed.is_none_or(|last| last < Instant::now()), "{name}");
        world.print(name, first, Recovered::ByOperator);
        // The operator has looked into it.
        world.load.paused(|| world.fixture().appliance.restart_front().unwrap());
        world.blameless(name);
        let signed = world.load.count();
        while world.load.since(signed).iter().all(|asked| !asked.signed) {
            assert!(began.elapsed() < LONG, "{name}: it does not sign after the operator's restart\n{}", world.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    world.finish();
}

#[test]
fn a_token_that_shows_another_key_is_not_believed_until_it_shows_the_right_one() {
    let world = World::start("wrong key");
    world.row("another public key for 0.9 s", RECOVERED, |world| {
        let lie = |attribute: Attribute| Condition::Lie {
            attribute,
            says: Says::OfAnotherKey,
            class: None,
            label: Some("acme-active".to_owned()),
        };
        world.control.impose(lie(attribute::CKA_EC_POINT)).unwrap();
        world.control.strike(Event::lose_sessions()).unwrap();
        std::thread::sleep(Duration::from_millis(900));
        world.control.clear().unwrap();
        Instant::now()
    });
    world.finish();
}

/// Has this many signatures come out so, and waits until they have.
fn spoilt(world: &World, how: Corruption, times: u64) -> Instant {
    world.control.reset_counters().unwrap();
    world.control.inject(Fault::on(Function::C_Sign).corrupts(how).times(times)).unwrap();
    world.control.wait_until(LONG, |seen| seen.of(Function::C_Sign).injected >= times).unwrap();
    Instant::now()
}
