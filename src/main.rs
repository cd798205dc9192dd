//! The program: arguments in, exit code out. Everything else is the library.

fn main() -> std::process::ExitCode {
    l4lb::cli::main(std::env::args_os()).into()
}
