//! See the library of this package.

fn main() -> std::process::ExitCode {
    producer::main(std::env::args_os())
}
