//! The sealed helper of one Fulcio flow. `signerd` starts it; by hand it says nothing and ends.

#![forbid(unsafe_code)]

#[global_allocator]
static ARENA: signer_keyless::Arena = signer_keyless::Arena::new();

fn main() {
    signer_keyless::run(&ARENA);
}
