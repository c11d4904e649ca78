//! `voilectl`: the operator's shell.

fn main() -> std::process::ExitCode {
    ctl::main()
}
