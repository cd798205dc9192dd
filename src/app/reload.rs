//! Reads the configuration again while everything runs: on a thread of its own, so that neither control nor a worker waits
//! for a disk, a long file or a name server.
//!
//! Knows: the file, the sockets, and how to resolve. Must not touch: the plan; control puts in force what is read here.

use crate::app::lock;
use crate::app::store::Store;
use crate::config;
use crate::discovery::{Name, Resolver};
use crate::link::plain::PlainStream;
use crate::shared::mail::{Adopt, ControlMail, ENDS, Listen, Moves, Reload, WorkerMail, WorkerPost};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// How long a reload waits for names to be resolved; the rest come later, by mail.
const NAMES: Duration = Duration::from_secs(2);

/// How often sockets that no listener has any more are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What a reload works with.
pub(super) struct Loader {
    /// The file; `None` where flags have said everything.
    pub(super) file: Option<PathBuf>,
    pub(super) resolver: Resolver,
    pub(super) mail: Sender<ControlMail>,
    /// What is bound.
    pub(super) store: Arc<Mutex<Store>>,
    pub(super) posts: Vec<WorkerPost<PlainStream>>,
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

    fn run(self, wishes: &Receiver<Reload>) {
        loop {
            match wishes.recv_timeout(LOOK) {
                Ok(reload) => self.reload(reload),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let silent = lock(&self.store).silent();
            if !silent.is_empty() {
                for post in &self.posts {
                    post.order(WorkerMail::Listen(Listen { drop: silent.clone(), ..Listen::default() }));
                }
            }
        }
    }

    fn reload(&self, reload: Reload) {
        let loaded = self.load(&reload);
        // Nobody else has the store before control knows: sockets that are handed to another process are those of one
        // configuration.
        let mut store = lock(&self.store);
        let kept = loaded.and_then(|adopt| self.discard(&mut store, adopt, &reload));
        let opened = kept.and_then(|adopt| {
            let opened = open(&mut store, adopt, reload.dry_run);
            if opened.is_err() && reload.discard && !reload.dry_run {
                let _ = self.mail.send(ControlMail::DiscardNot);
            }
            opened
        });
        match opened {
            // Where control has ended, so does everything else.
            Ok(adopt) => _ = self.mail.send(ControlMail::Adopt(Box::new(Adopt { reload, ..adopt }))),
            Err(errors) => {
                let what = if reload.dry_run { "reload (dry run)" } else { "reload" };
                for error in &errors {
                    log::error!("{what}: {error}");
                }
                log::error!("{what}: nothing is changed");
                reload.reply.tell(Err(errors));
            }
        }
    }

    /// Where what the admin API has changed is to go, it is let go where it is kept, before a socket moves: that is what may
    /// fail.
    fn discard(&self, store: &mut Store, adopt: Adopt, reload: &Reload) -> Result<Adopt, Vec<String>> {
        if !reload.discard || reload.dry_run {
            return Ok(adopt);
        }
        // Nothing is let go for a reload that cannot be.
        let adopt = open(store, adopt, true)?;
        let (tell, told) = bounded(1);
        let sent = self.mail.send(ControlMail::Discard { config: Box::new(adopt.config.clone()), tell });
        match sent.ok().and_then(|()| told.recv().ok()) {
            Some(Ok(())) => Ok(adopt),
            Some(Err(error)) => Err(vec![error]),
            None => Err(vec!["this process ends, and takes nothing new".to_owned()]),
        }
    }

    /// What the file says, and what its names resolve to; or everything that is wrong.
    fn load(&self, reload: &Reload) -> Result<Adopt, Vec<String>> {
        let Some(file) = &self.file else {
            return Err(vec!["there is no file to read again: everything was said by flags".to_owned()]);
        };
        let config = config::load_again(file);
        let config = config.map_err(|errors| errors.to_string().lines().map(str::to_owned).collect::<Vec<_>>())?;
        let names = Name::of(&config);
        let ask = !reload.dry_run && !names.is_empty();
        let answers = if ask { self.resolver.learn(names, NAMES) } else { Vec::new() };
        let resolved = answers.into_iter().map(|(name, addresses)| ((name.host, name.port), addresses)).collect();
        Ok(Adopt { config, resolved, moves: Moves::default(), reload: Reload::default() })
    }
}

/// The same with all its sockets open, or with nothing changed.
fn open(store: &mut Store, adopt: Adopt, dry_run: bool) -> Result<Adopt, Vec<String>> {
    let Some(change) = store.again(&adopt.config, dry_run) else {
        return Err(vec![ENDS.to_owned()]);
    };
    let change = change.map_err(|error| vec![error.to_string()])?;
    for bound in &change.added {
        super::announce(bound);
    }
    Ok(Adopt { moves: change.moves, ..adopt })
}
