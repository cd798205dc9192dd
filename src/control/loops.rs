//! Addresses of backends that are our own listeners: what is sent there would come back to us, for ever.
//!
//! The configuration is checked for those that can be seen in it. These are the rest: what names resolve to, ports that the
//! system chose, and addresses that the machine has got since.

use crate::base::machine::arrives;
use crate::config::{Address, Transport};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Where we listen, on which machine.
#[derive(Debug)]
pub(super) struct Loops {
    listening: Vec<(Transport, SocketAddr)>,
    machine: fn() -> Vec<IpAddr>,
    own: Vec<IpAddr>,
    /// By what traffic comes to each pool.
    carried: Vec<Vec<Transport>>,
    /// What was found in this snapshot and in the last one: pool, backend, address.
    found: BTreeSet<(Arc<str>, Arc<str>, SocketAddr)>,
    told: BTreeSet<(Arc<str>, Arc<str>, SocketAddr)>,
}

impl Default for Loops {
    /// Nothing is an own listener yet.
    fn default() -> Loops {
        let (listening, own, carried, found, told) = Default::default();
        Loops { listening, machine: Vec::new, own, carried, found, told }
    }
}

impl Loops {
    /// From now on this is what traffic comes to each pool by.
    pub(super) fn carry(&mut self, carried: Vec<Vec<Transport>>) {
        self.carried = carried;
    }

    /// From now on what arrives at `listening` is a loop.
    pub(super) fn bind(&mut self, listening: Vec<(Transport, SocketAddr)>) {
        self.listening = listening;
        self.look();
    }

    /// From now on what arrives at `listening` is a loop; `machine` tells the addresses of this one.
    pub(super) fn listen(&mut self, listening: Vec<(Transport, SocketAddr)>, machine: fn() -> Vec<IpAddr>) {
        self.listening = listening;
        self.machine = machine;
        self.look();
    }

    /// Looks at the addresses of the machine again. True when they are others.
    pub(super) fn look(&mut self) -> bool {
        let own = if self.listening.is_empty() { Vec::new() } else { (self.machine)() };
        let moved = self.own != own;
        self.own = own;
        moved
    }

    /// `addresses` of a backend without those that lead back to us.
    pub(super) fn without(
        &mut self,
        pool: (usize, &Arc<str>),
        backend: &Arc<str>,
        addresses: Arc<[SocketAddr]>,
    ) -> Arc<[SocketAddr]> {
        let leads_back = |address: &SocketAddr| self.own_listener(pool.0, *address);
        if !addresses.iter().any(leads_back) {
            return addresses;
        }
        let (back, away): (Vec<_>, Vec<_>) = addresses.iter().partition(|address| leads_back(address));
        self.found.extend(back.into_iter().map(|address: SocketAddr| (pool.1.clone(), backend.clone(), address)));
        away.into()
    }

    fn own_listener(&self, pool: usize, to: SocketAddr) -> bool {
        self.carried[pool].iter().any(|by| {
            let binds = self.listening.iter().filter(|(transport, bind)| transport == by && bind.port() == to.port());
            // As they are bound: [::] leaves IPv4 to a listener that has the port there.
            let only_v6 = binds.clone().any(|(_, bind)| bind.is_ipv4());
            binds.clone().any(|(_, bind)| arrives(to.ip(), bind.ip(), only_v6, &self.own))
        })
    }

    /// Which listener takes what pool `pool` sends to `address`; a pool that nobody uses yet may be used over either transport.
    pub(super) fn leads_back(&self, pool: usize, address: &Address) -> Option<SocketAddr> {
        let carried = self.carried.get(pool).map_or(&[][..], Vec::as_slice);
        let binds = || {
            self.listening
                .iter()
                .filter(|(by, bind)| (carried.is_empty() || carried.contains(by)) && bind.port() == address.port())
        };
        let only_v6 = binds().any(|(_, bind)| bind.is_ipv4());
        let takes = |bind: &SocketAddr| address.reaches(&Address::Ip(*bind), only_v6, &self.own);
        binds().map(|(_, bind)| *bind).find(takes)
    }

    /// The snapshot is built: tells what was found in it and not in the one before.
    pub(super) fn tell(&mut self) {
        let found = std::mem::take(&mut self.found);
        for (pool, backend, address) in found.difference(&self.told) {
            log::error!("pool {pool}: backend {backend} is at {address}, and that is our own listener: not used");
        }
        self.told = found;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    const FILE: &str = "
        pool = [{ name = 'streams' }, { name = 'packets' }, { name = 'both' }, { name = 'idle' }]
        [[listener]]
        name = 'tcp'
        bind = '0.0.0.0:0'
        protocol = 'http'
        pool = 'streams'
        route = [{ pool = 'both' }]
        [[listener]]
        name = 'udp'
        bind = '[::]:0'
        protocol = 'udp'
        pool = 'packets'
        [[listener]]
        name = 'udp2'
        bind = '127.0.0.1:0'
        protocol = 'udp'
        pool = 'both'
    ";

    fn loops() -> Loops {
        let config = config::parse(FILE, "test").unwrap();
        let pools = |at: usize| config.listeners.iter().filter(move |l| leads(l, at)).map(|l| l.protocol.transport());
        let mut loops = Loops::default();
        loops.carry((0..config.pools.len()).map(|at| pools(at).collect()).collect());
        loops
    }

    fn leads(listener: &config::Listener, pool: usize) -> bool {
        listener.pool == Some(pool) || listener.routes.iter().any(|route| route.pool == pool)
    }

    fn machine() -> Vec<IpAddr> {
        ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse().unwrap()).to_vec()
    }

    #[test]
    fn only_what_leads_back_over_the_same_transport_is_left_out() {
        let mut loops = loops();
        let bound = [(Transport::Tcp, "0.0.0.0:80"), (Transport::Udp, "[::]:53"), (Transport::Udp, "127.0.0.1:54")];
        let bound = bound.map(|(by, at)| (by, at.parse().unwrap())).to_vec();
        let (streams, packets, both, idle) = (0, 1, 2, 3);
        let name: Arc<str> = "p".into();
        let without = |loops: &mut Loops, pool, addresses: &str| {
            let addresses = addresses.split(' ').map(|address| address.parse().unwrap()).collect();
            let left = loops.without((pool, &name), &"b".into(), addresses);
            left.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(without(&mut loops, streams, "127.0.0.1:80"), "127.0.0.1:80", "nobody listens yet");
        loops.listen(bound, machine);
        let cases = [
            ("an own address", streams, "192.0.2.1:80", ""),
            ("another port of it", streams, "192.0.2.1:81", "192.0.2.1:81"),
            ("what listens there is udp", streams, "192.0.2.1:53 127.0.0.1:54", "192.0.2.1:53 127.0.0.1:54"),
            ("another machine", streams, "192.0.2.2:80", "192.0.2.2:80"),
            (
                "one of several, in their order",
                streams,
                "192.0.2.9:80 127.0.0.1:80 192.0.2.8:80",
                "192.0.2.9:80 192.0.2.8:80",
            ),
            ("IPv4 at [::]", packets, "192.0.2.1:53 [2001:db8::1]:53 192.0.2.2:53", "192.0.2.2:53"),
            ("what listens there is tcp", packets, "192.0.2.1:80", "192.0.2.1:80"),
            ("either", both, "127.0.0.1:80 127.0.0.1:54 127.0.0.1:53 127.0.0.1:55", "127.0.0.1:55"),
            ("nothing comes to it", idle, "127.0.0.1:80", "127.0.0.1:80"),
        ];
        for (why, pool, addresses, left) in cases {
            assert_eq!(without(&mut loops, pool, addresses), left, "{why}");
        }
    }

    #[test]
    fn what_is_found_is_told_once() {
        let mut loops = loops();
        loops.listen(vec![(Transport::Tcp, "0.0.0.0:80".parse().unwrap())], machine);
        let mut round = |address: &str| {
            let before = loops.told.clone();
            loops.without((0, &"p".into()), &"b".into(), Arc::new([address.parse().unwrap()]));
            let new = loops.found.difference(&before).count();
            loops.tell();
            new
        };
        let rounds = ["127.0.0.1:80", "127.0.0.1:80", "192.0.2.1:80", "192.0.2.7:80", "192.0.2.1:80"].map(&mut round);
        assert_eq!(rounds, [1, 0, 1, 0, 1], "again only when it was good meanwhile");
    }

    #[test]
    fn addresses_that_come_and_go_are_noticed() {
        let mut loops = loops();
        assert!(!loops.look(), "nothing listens, so none matter");
        loops.listen(vec![(Transport::Tcp, "0.0.0.0:80".parse().unwrap())], machine);
        assert!(!loops.look(), "they are as before");
        loops.machine = Vec::new;
        assert!(loops.look() && !loops.look());
    }
}
