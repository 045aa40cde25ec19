//! See the library of this package.

fn main() -> std::process::ExitCode {
    coordinator::main(std::env::args_os())
}
