//! See the library of this package.

fn main() -> std::process::ExitCode {
    consumer::main(std::env::args_os())
}
