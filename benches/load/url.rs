//! stub
use std::process::ExitCode;
pub(crate) fn run(_: &str, _: &crate::args::Args) -> ExitCode {
    ExitCode::FAILURE
}
