//! `signerctl`: what the operator and the client type.

fn main() -> std::process::ExitCode {
    stellaops_signer::ctl::main()
}
