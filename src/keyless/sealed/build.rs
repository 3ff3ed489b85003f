//! Compiles `src/sandbox/filter.json` to BPF, so that the helper reads no policy when it starts.

fn main() {
    println!("cargo:rerun-if-changed=src/sandbox/filter.json");
    #[cfg(feature = "sealed")]
    filter();
}

#[cfg(feature = "sealed")]
fn filter() {
    use std::env;
    use std::fmt::Write as _;
    use std::fs;
    use std::path::Path;

    use seccompiler::{TargetArch, compile_from_json};

    let source = fs::read("src/sandbox/filter.json").expect("src/sandbox/filter.json can be read");
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo names the architecture");
    let arch = TargetArch::try_from(arch.as_str()).expect("the filter can be compiled for x86_64 and aarch64");
    let filters = compile_from_json(&source[..], arch).expect("src/sandbox/filter.json is a filter");
    let program = &filters["sealed"];

    let mut text = format!("const PROGRAM: [libc::sock_filter; {}] = [\n", program.len());
    for step in program {
        let (code, jt, jf, k) = (step.code, step.jt, step.jf, step.k);
        writeln!(text, "    libc::sock_filter {{ code: {code:#06x}, jt: {jt}, jf: {jf}, k: {k:#010x} }},")
            .expect("a String takes it");
    }
    text.push_str("];\n");
    let out = env::var_os("OUT_DIR").expect("cargo names an output directory");
    fs::write(Path::new(&out).join("filter.rs"), text).expect("the output directory can be written");
}
