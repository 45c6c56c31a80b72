//! Machines nearby, by mDNS: announces this one, hears of others (DO).

use super::Agent;
use std::{net::SocketAddr, sync::Arc, time::Duration};

#[derive(Debug, Default)]
pub(super) struct Nearby {}

pub(super) async fn discover(_agent: Arc<Agent>) {}
pub(super) async fn goodbye(_agent: &Agent) {}
pub(super) async fn showing(_agent: &Agent, _digits: u16, _wait: Duration) -> Vec<SocketAddr> {
    Vec::new()
}
pub(super) fn problem(_agent: &Agent) -> Option<String> {
    None
}
pub(super) fn strangers(_agent: &Agent) -> u16 {
    0
}
impl Agent {
    pub(super) fn announce(&self) {}
}

/// The addresses of this machine that others may reach, best first.
pub(super) fn own_addresses(loopback: bool) -> Vec<std::net::IpAddr> {
    let all = if_addrs::get_if_addrs().unwrap_or_default();
    let usable = |i: &if_addrs::Interface| i.is_loopback() == loopback && !i.is_link_local();
    all.iter().filter(|i| usable(i)).map(|i| i.ip()).collect()
}
