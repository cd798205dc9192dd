//! Reads the configuration again while everything runs: on a thread of its own, so that neither control nor a worker waits
//! for a disk, a long file or a name server.
//!
//! Knows: the file, and how to resolve. Must not touch: the plan; control puts in force what is read here.

use crate::config::{self, Config};
use crate::discovery::{Name, Resolver};
use crate::shared::mail::{Adopt, ControlMail, Reload, Resolved};
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// How long a reload waits for names to be resolved; the rest come later, by mail.
const NAMES: Duration = Duration::from_secs(2);

/// What a reload works with.
pub(super) struct Loader {
    /// The file; `None` where flags have said everything.
    pub(super) file: Option<PathBuf>,
    pub(super) resolver: Resolver,
    pub(super) mail: Sender<ControlMail>,
    /// What is bound.
    pub(super) doors: Doors,
}

/// Listeners, and where they are.
pub(super) type Doors = Vec<(String, config::Protocol, Vec<config::Address>)>;

/// Those of `config`.
pub(super) fn doors_of(config: &Config) -> Doors {
    let mut doors: Doors = config.listeners.iter().map(|l| (l.name.clone(), l.protocol, l.binds.clone())).collect();
    doors.sort_by(|a, b| a.0.cmp(&b.0));
    doors
}

impl Loader {
    /// Starts the thread. It ends when nobody can wish for a reload any more.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn start(self) -> io::Result<Sender<Reload>> {
        let (wish, wishes) = unbounded();
        thread::Builder::new().name("reload".into()).spawn(move || self.run(&wishes))?;
        Ok(wish)
    }

    fn run(mut self, wishes: &Receiver<Reload>) {
        for reload in wishes {
            match self.load() {
                Ok((config, resolved)) => {
                    let adopt = Adopt { config, resolved, reload };
                    // Control has ended, and so does everything else.
                    let _ = self.mail.send(ControlMail::Adopt(Box::new(adopt)));
                }
                Err(errors) => {
                    for error in &errors {
                        log::error!("reload: {error}");
                    }
                    log::error!("reload: nothing is changed");
                    reload.reply.tell(Err(errors));
                }
            }
        }
    }

    fn load(&mut self) -> Result<(Config, Resolved), Vec<String>> {
        let Some(file) = &self.file else {
            return Err(vec!["there is no file to read again: everything was said by flags".to_owned()]);
        };
        let config =
            config::load(file).map_err(|errors| errors.to_string().lines().map(str::to_owned).collect::<Vec<_>>())?;
        let bound = doors_of(&config);
        if bound != self.doors {
            return Err(vec!["listeners cannot be added, removed or moved yet without a restart".to_owned()]);
        }
        let names = Name::of(&config);
        let answers = if names.is_empty() { Vec::new() } else { self.resolver.learn(names, NAMES) };
        let resolved = answers.into_iter().map(|(name, addresses)| ((name.host, name.port), addresses)).collect();
        Ok((config, resolved))
    }
}
