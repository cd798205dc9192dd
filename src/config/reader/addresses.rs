//! The part of the reader that knows addresses.

use std::str::FromStr;

use toml::de::DeValue;

use super::super::address::{Address, AddressError};
use super::super::error::Fault;
use super::super::keys::Takes;
use super::{Noted, Open, Reader};

impl Reader<'_> {
    /// One address, for a backend.
    pub(in crate::config) fn backend_address(
        &mut self,
        open: &Open<'_>,
        key: &str,
    ) -> Option<(Noted<Address>, String)> {
        let (value, span, takes) = self.value(open, key)?;
        let address = self.address(value, span.start, open.place_of(key), takes, Address::backend)?;
        let typed = value.as_str().unwrap_or_default().to_owned();
        Some((address, typed))
    }

    /// One address, to listen on.
    pub(in crate::config) fn bind(&mut self, open: &Open<'_>, key: &str) -> Option<Noted<Address>> {
        let (value, span, takes) = self.value(open, key)?;
        self.address(value, span.start, open.place_of(key), takes, Address::from_str)
    }

    /// One address or an array of them, to listen on; those that are usable.
    pub(in crate::config) fn binds(&mut self, open: &Open<'_>, key: &str) -> Vec<Noted<Address>> {
        let Some((value, span, takes)) = self.value(open, key) else {
            return Vec::new();
        };
        let place = open.place_of(key);
        match value {
            DeValue::Array(items) if items.is_empty() => {
                self.report(span.start, place, Fault::Empty(takes));
                Vec::new()
            }
            DeValue::Array(items) => {
                let mut binds = Vec::new();
                for (i, item) in items.iter().enumerate() {
                    let place = format!("{place}[{i}]");
                    binds.extend(self.address(item.get_ref(), item.span().start, place, takes, Address::from_str));
                }
                binds
            }
            _ => self.address(value, span.start, place, takes, Address::from_str).into_iter().collect(),
        }
    }

    fn address(
        &mut self,
        value: &DeValue<'_>,
        at: usize,
        place: String,
        takes: &'static Takes,
        read: impl Fn(&str) -> Result<Address, AddressError>,
    ) -> Option<Noted<Address>> {
        let DeValue::String(text) = value else {
            return self.wrong_type(at, place, value, takes);
        };
        if text.is_empty() {
            self.report(at, place, Fault::Empty(takes));
            return None;
        }
        match read(text) {
            Ok(value) => Some(Noted { value, at, place }),
            Err(error) => {
                self.report(at, place, error.into());
                None
            }
        }
    }
}
