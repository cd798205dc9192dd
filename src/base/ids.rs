//! A name for each number, so that two of them cannot be swapped.

use crate::base::slab::{Key, MOST_GENERATION};

macro_rules! slab_key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name {
            index: u32,
            generation: u32,
        }

        impl Key for $name {
            fn new(index: u32, generation: u32) -> Self {
                $name { index, generation }
            }
            fn index(self) -> u32 {
                self.index
            }
            fn generation(self) -> u32 {
                self.generation
            }
        }
    };
}

slab_key! {
    /// One link of one worker: its slab index, and which tenant of that slot it is.
    /// A late event for a link that is gone finds nothing, never its successor.
    LinkId
}

slab_key! {
    /// One client's session in one worker.
    SessionId
}

slab_key! {
    /// One client's session of datagrams in one worker.
    FlowId
}

const _: () = assert!(usize::BITS == 64, "a poll token holds a whole LinkId");

impl LinkId {
    /// As a poll token: generation in the high 32 bits, index in the low ones. Generations start at 1,
    /// so that tokens below 2^32 are free for what is not a link.
    pub fn token(self) -> usize {
        (self.generation as usize) << 32 | self.index as usize
    }

    /// The link a token names; `None` when the token never named one.
    pub fn from_token(token: usize) -> Option<LinkId> {
        let generation = (token >> 32) as u32;
        (generation != 0 && token & FLOW == 0).then_some(LinkId { index: token as u32, generation })
    }
}

/// The bit of a poll token that tells a flow from a link: generations leave it free.
const FLOW: usize = 1 << 63;

impl FlowId {
    /// As a poll token: that of a link with the topmost bit set.
    pub fn token(self) -> usize {
        FLOW | (self.generation as usize) << 32 | self.index as usize
    }

    /// The flow a token names; `None` when the token never named one.
    pub fn from_token(token: usize) -> Option<FlowId> {
        let generation = (token >> 32) as u32 & MOST_GENERATION;
        (generation != 0 && token & FLOW != 0).then_some(FlowId { index: token as u32, generation })
    }
}

/// A listener of the configuration in force: its place in the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub u16);

/// A pool of the configuration in force: its place in the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolId(pub u32);

/// A backend for as long as the process knows it, over every snapshot: the key of its live state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendSlot(pub u32);

/// An address that is listened on, for as long as it is: each worker has a socket of that number, whichever listener it is
/// of just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub u32);

/// A worker thread, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_gives_back_its_link_and_small_tokens_name_none() {
        let link = LinkId::new(7, 9);
        assert_eq!(LinkId::from_token(link.token()), Some(link));
        assert_eq!(LinkId::from_token(0), None, "the waker");
        assert_eq!(LinkId::from_token(u32::MAX as usize), None, "the last of the small tokens");
    }

    #[test]
    fn a_token_names_a_link_or_a_flow_never_both() {
        for generation in [1, 9, MOST_GENERATION] {
            for index in [0, 7, u32::MAX] {
                let (link, flow) = (LinkId::new(index, generation), FlowId::new(index, generation));
                assert_eq!((LinkId::from_token(link.token()), FlowId::from_token(link.token())), (Some(link), None));
                assert_eq!((LinkId::from_token(flow.token()), FlowId::from_token(flow.token())), (None, Some(flow)));
            }
        }
        assert_eq!(FlowId::from_token(u32::MAX as usize), None, "the last of the small tokens");
    }
}
