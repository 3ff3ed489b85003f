//! Links the module so that it is never unmapped.

fn main() {
    // An application may close the library while the control thread still runs in it.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rerun-if-changed=build.rs");
}
