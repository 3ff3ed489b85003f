//! The token worker: `signer-token --config FILE --name NAME`.

fn main() -> std::process::ExitCode {
    stellaops_signer::custody::worker::main()
}
