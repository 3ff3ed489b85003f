//! The same end-to-end cases on every device. A device is a module here; without its peer it is skipped by that name.
//!
//! `rack` runs on whatever `SIGNER_TEST_MODULE`, `SIGNER_TEST_TOKEN` and `SIGNER_TEST_PIN_FILE` (or `SIGNER_TEST_PIN`)
//! name: the device that an operator has in the rack.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod cases;

/// A module of tests, one for each case, on the device that `$make` brings up.
macro_rules! device {
    ($name:ident, $make:expr $(, ignored: $why:literal)?) => {
        mod $name {
            device!(@case signs_for_both_bindings_and_openssl_verifies, $make $(, $why)?);
            device!(@case lists_its_keys_with_their_states, $make $(, $why)?);
            device!(@case refuses_without_touching_a_key, $make $(, $why)?);
            device!(@case signs_again_after_its_worker_was_stopped_and_after_it_was_killed, $make $(, $why)?);
            device!(@case serves_sixty_four_callers_at_once, $make $(, $why)?);
            device!(@case is_conformant, $make $(, $why)?);
        }
    };
    ($name:ident without a module, $make:expr) => {
        mod $name {
            device!(@case signs_for_both_bindings_and_openssl_verifies, $make);
            device!(@case lists_its_keys_with_their_states, $make);
            device!(@case refuses_without_touching_a_key, $make);
            device!(@case signs_again_after_its_worker_was_stopped_and_after_it_was_killed, $make);
            device!(@case serves_sixty_four_callers_at_once, $make);
        }
    };
    (@case $case:ident, $make:expr $(, $why:literal)?) => {
        #[test]
        $(#[ignore = $why])?
        fn $case() {
            crate::cases::$case($make);
        }
    };
}

device!(softhsm2, testkit::softhsm::SoftHsm::create);
// Conformance runs are for PKCS#11 modules.
device!(yubihsm2 without a module, |dir, _| testkit::yubihsm::YubiHsm::create(dir, std::time::Duration::from_secs(30)));
device!(kryoptic, testkit::device::Kryoptic::create, ignored: "needs kryoptic: run it by cargo xtask test matrix");
device!(tpm2_pkcs11, testkit::device::Tpm::create, ignored: "needs swtpm and tpm2-pkcs11: run it by cargo xtask test matrix");
device!(rack, |dir, _| testkit::device::Rack::named(dir), ignored: "needs SIGNER_TEST_MODULE: see docs/hsm.md");
