//! From what a request asks for to the route that takes it: the first one in the file whose conditions all hold.
//!
//! Knows: hosts, paths, methods, fields, and their order. Must not touch: pools (a route carries a number that means one),
//! the codec, the configuration's text. Read [`Router::find`] first; table.rs is how it does with a hash and a short walk
//! what a walk over all routes would do.
//!
//! What the conditions mean where the configuration's keys leave room:
//! - **host**: without the port and the root's dot, in any case of letters (ASCII). `*.example.com` takes what has one or
//!   more labels before it (`a.example.com`, `b.a.example.com`), not `example.com` itself. An IPv6 literal has brackets and
//!   is compared as text, as browsers write it. No Host at all meets only routes without a host.
//! - **path**, **path_prefix**: case counts. `/v1` as a prefix takes `/v1`, `/v1/` and `/v1/x`, not `/v1x`; `/v1/` takes
//!   `/v1/` and `/v1/x`, not `/v1`; `/` takes everything, `*` included.
//! - **method**: case counts, and GET does not stand for HEAD.
//! - **header**: its name in any case of letters, its value byte for byte; of a repeated field one is enough.

mod host;
mod table;

use rustc_hash::FxHashMap;

pub use host::{HostError, HostMatch, host_of};
use table::Paths;

/// One route as meant: a condition that is not given holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The host.
    pub host: Option<HostMatch>,
    /// The whole path; begins with `/`.
    pub path: Option<String>,
    /// Whole leading segments of the path; begins with `/`.
    pub path_prefix: Option<String>,
    /// Any of these; empty: every method.
    pub methods: Vec<String>,
    /// A field of the head.
    pub header: Option<HeaderMatch>,
    /// What the route leads to, in the caller's numbering.
    pub target: u16,
}

/// A field that must be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    /// Its name.
    pub name: String,
    /// Its value; `None`: any.
    pub value: Option<Vec<u8>>,
}

/// What routes look at in a request.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a, I> {
    /// As [`host_of`] gives it; empty when the request names none.
    pub host: &'a str,
    /// In normal form, without the query.
    pub path: &'a str,
    /// As sent.
    pub method: &'a str,
    /// Names and values of the head's fields. Walked only when a route asks for one.
    pub fields: I,
}

/// Routes, compiled. Built with the snapshot; immutable.
#[derive(Debug, Default)]
pub struct Router {
    routes: Box<[Route]>,
    /// Routes without a host condition.
    anywhere: Paths,
    exact: FxHashMap<Box<[u8]>, Paths>,
    /// By what stands behind `*.`.
    wild: FxHashMap<Box<[u8]>, Paths>,
    /// Labels in the longest name of `wild`: further left no lookup could succeed.
    labels: usize,
}

impl Router {
    /// Compiles `routes`, whose order counts.
    ///
    /// # Panics
    /// With `u32::MAX` routes or more.
    pub fn build(routes: Vec<Route>) -> Router {
        let mut router = Router { routes: routes.into(), ..Router::default() };
        for (index, route) in router.routes.iter().enumerate() {
            let index = u32::try_from(index).ok().filter(|index| *index < NONE).expect("there are fewer routes");
            let paths = match &route.host {
                None => &mut router.anywhere,
                Some(host) if host.wild() => {
                    router.labels = router.labels.max(host.name().split('.').count());
                    router.wild.entry(host.name().as_bytes().into()).or_default()
                }
                Some(host) => router.exact.entry(host.name().as_bytes().into()).or_default(),
            };
            paths.insert(index, route, &router.routes);
        }
        router
    }

    /// The index of the first route that takes the request. Allocates nothing, and costs what the request is long, not
    /// what there are routes.
    pub fn find<'a, I>(&self, facts: &Facts<'a, I>) -> Option<usize>
    where
        I: Iterator<Item = (&'a str, &'a [u8])> + Clone,
    {
        let mut best = NONE;
        self.anywhere.find(facts, &self.routes, &mut best);
        let named = !self.exact.is_empty() || !self.wild.is_empty();
        let mut buffer = [0; host::MAX];
        if let Some(host) = buffer.get_mut(..facts.host.len()).filter(|_| named) {
            host.copy_from_slice(facts.host.as_bytes());
            host.make_ascii_lowercase();
            if let Some(paths) = self.exact.get(&*host) {
                paths.find(facts, &self.routes, &mut best);
            }
            let dots = (1..host.len()).rev().filter(|&at| host[at] == b'.');
            for paths in dots.take(self.labels).filter_map(|dot| self.wild.get(&host[dot + 1..])) {
                paths.find(facts, &self.routes, &mut best);
            }
        }
        (best != NONE).then_some(best as usize)
    }

    /// The route of an index that [`Router::find`] gave.
    ///
    /// # Panics
    /// When there is no such route.
    pub fn route(&self, index: usize) -> &Route {
        &self.routes[index]
    }

    /// How many routes there are.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }
}

/// No route: greater than every index, so that the first route found is the lowest so far.
const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests;
