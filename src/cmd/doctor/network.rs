//! What the doctor says of the network: the port, discovery, and the machines that are not reached (DECIDE).

use super::advice::{Check, Level, check, good};
use std::net::IpAddr;

/// Machines that are named one by one.
const NAMED_MAX: usize = 8;

/// Another machine of the mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Other {
    /// Its name.
    pub(super) name: String,
    /// Where it is or may be.
    pub(super) addresses: Vec<String>,
    /// Whether there is a connection.
    pub(super) connected: bool,
    /// The address that lies in the network of one of this machine's interfaces, and the other interface through which
    /// the system sends to it all the same.
    pub(super) captured: Option<(IpAddr, String)>,
}

/// What is known of the network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Network {
    /// The UDP port that the agent has.
    pub(super) port: u16,
    /// Why discovery does not work, if it does not.
    pub(super) discovery_problem: Option<String>,
    /// The other members.
    pub(super) others: Vec<Other>,
    /// Whether this machine is a container.
    pub(super) is_container: bool,
}

/// What is to be said, in this order.
pub(super) fn checks(network: &Network) -> Vec<Check> {
    let mut said = vec![good("port", format!("udp {} open here", network.port)), discovery(network)];
    let captured = network.others.iter().filter_map(|other| other.captured.as_ref());
    said.extend(captured.take(NAMED_MAX).map(|(ip, interface)| {
        let text = format!("traffic to {ip} goes through {interface}: a VPN captures your LAN");
        check("vpn-route", Level::Warning, text, "have the VPN leave the local network out (\"allow LAN access\")")
    }));
    let missing = || network.others.iter().filter(|other| !other.connected);
    if network.is_container && !network.others.is_empty() && missing().count() == network.others.len() {
        said.push(check(
            "container",
            Level::Warning,
            "inside a container and connected with nobody: others find it only if they are told where",
            "publish one UDP port and set MESH_ADVERTISE to the host's address and that port: 192.168.1.30:6374",
        ));
    }
    said.extend(missing().take(NAMED_MAX).map(|other| absent(other, network.port)));
    said
}

fn discovery(network: &Network) -> Check {
    match &network.discovery_problem {
        None => good("mdns", "nothing keeps this machine from announcing itself and hearing others"),
        Some(why) => check(
            "mdns",
            Level::Warning,
            format!("{why}: remembered addresses only"),
            "connections still work where an address is known; to name one: mesh peers add HOST",
        ),
    }
}

fn absent(other: &Other, port: u16) -> Check {
    let name = &other.name;
    if other.addresses.is_empty() {
        let text = format!("{name} is not connected, and no address of it is known");
        let hint = "if it runs: multicast does not arrive between the two. Name it here: mesh peers add HOST";
        return check("path", Level::Warning, text, hint);
    }
    let text = format!("{name} is not connected: it does not answer at {}", other.addresses.join(", "));
    let hint = format!(
        "if it runs: a firewall on one of the two drops udp (here {port}), or this Wi-Fi isolates its clients; one of the \
         two must let the other in. mesh setup firewall prints what opens this one"
    );
    check("path", Level::Warning, text, hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(network: &Network) -> String {
        let line = |c: &Check| format!("{:4} {:9} {} | {}", c.level.word(), c.id, c.text, c.hint);
        checks(network).iter().map(|c| line(c).trim_end_matches([' ', '|']).to_owned()).collect::<Vec<_>>().join("\n")
    }

    fn tower() -> Other {
        Other { name: "tower".into(), addresses: vec!["192.168.1.31:6374".into()], connected: true, captured: None }
    }

    #[test]
    fn a_network_that_works_needs_nothing() {
        let network = Network { port: 6374, others: vec![tower()], is_container: true, ..Network::default() };
        assert!(checks(&network).iter().all(|check| check.level == Level::Good), "{}", lines(&network));
    }

    #[test]
    fn each_obstacle_is_named_with_what_helps() {
        let captured = Some((IpAddr::from([192, 168, 1, 31]), "tun0".to_owned()));
        let network = Network {
            port: 6374,
            discovery_problem: Some("port 5353 is held by another program".into()),
            others: vec![
                Other { connected: false, captured, ..tower() },
                Other { name: "mini".into(), ..Other::default() },
            ],
            is_container: true,
        };
        let ids: Vec<_> = checks(&network).iter().map(|check| (check.id, check.level.word())).collect();
        let warned = ["mdns", "vpn-route", "container", "path", "path"].map(|id| (id, "warn"));
        assert_eq!(ids, [&[("port", "ok")][..], &warned].concat());
        let said = lines(&network);
        assert!(said.contains("traffic to 192.168.1.31 goes through tun0: a VPN captures your LAN"), "{said}");
        assert!(said.contains("tower is not connected: it does not answer at 192.168.1.31:6374"), "{said}");
        assert!(said.contains("no address of it is known"), "{said}");
    }
}
