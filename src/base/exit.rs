//! How the program ends, as a number that scripts can rely on.

use std::process::ExitCode;

/// Why the program ended. The numbers are part of the contract with users: see `EXIT STATUS` in l4lb(1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Exit {
    /// 0: done what was asked, or drained after a signal.
    Done,
    /// 1: the configuration is wrong.
    Config,
    /// 2: the command line is wrong.
    Usage,
    /// 3: an address cannot be bound.
    Bind,
}

impl Exit {
    /// The number, 0 to 3.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Config => 1,
            Exit::Usage => 2,
            Exit::Bind => 3,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}
