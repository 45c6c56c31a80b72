//! `mesh setup`: how a project is built on the mesh, or what is needed to run mesh elsewhere, to be copied (DO).

mod recipes;

use super::failure::{Failure, USAGE, out_raw};
use crate::{
    cli::{Setup, SetupFor},
    env,
    net::endpoint::PORT,
    sandbox::needs::CAPABILITIES,
};

/// Where the container keeps its files.
const DIR: &str = "/var/lib/mesh";
/// The port of mDNS (RFC 6762).
const MDNS: u16 = 5353;
/// What the image and the container are called.
const NAME: &str = "mesh-worker";

pub(super) fn run(args: &Setup) -> Result<u8, Failure> {
    let cwd = super::cc::working_directory();
    let found = || recipes::detected(|name| cwd.join(name).exists());
    let Some(what) = args.what.or_else(found) else {
        let text = "nothing in this folder tells how the project is built. Go to its top, or say it, as in: mesh setup cmake; mesh \
                    setup make; mesh setup --help shows all";
        return Err(Failure::coded(USAGE, text));
    };
    match recipes::recipe(what) {
        Some(recipe) => out_raw(&recipes::text(&recipe, args.what.is_none())),
        None if what == SetupFor::Firewall => out_raw(&firewall()),
        None => out_raw(&container()),
    }
    Ok(0)
}

/// What opens the two ports, for each kind of firewall. Nothing of it is run here: what a firewall lets through is its owner's to say.
fn firewall() -> String {
    format!(
        "# Machines of a mesh reach each other at UDP port {PORT}, and find each other by mDNS at {MDNS}, which networks without
# multicast do not need. Nothing else listens. Whoever is no member gets no further than a handshake.

# ufw
sudo ufw allow {PORT}/udp comment mesh
sudo ufw allow {MDNS}/udp comment mdns

# firewalld
sudo firewall-cmd --permanent --add-port={PORT}/udp --add-service=mdns
sudo firewall-cmd --reload

# nftables, where the table and the chain are called so
sudo nft add rule inet filter input udp dport '{{ {MDNS}, {PORT} }}' accept

# macOS asks once by itself; later, in System Settings, Network, Firewall.
"
    )
}

/// The container's file and the commands. The jobs' sandbox needs root in it, with what is listed and no more.
fn container() -> String {
    let needs: Vec<String> = CAPABILITIES.iter().map(|one| format!("#   {:<12} {}", one.name, one.why)).collect();
    let added: Vec<String> = CAPABILITIES.iter().map(|one| format!("    --cap-add {} \\", one.name)).collect();
    format!(
        "# A worker that lends the compilers of its distribution, for a shell in a folder with the programs mesh and mesh-cc.
cat > Containerfile <<'END'
FROM debian:stable-slim
RUN apt-get update && apt-get install -y --no-install-recommends gcc g++ clang && rm -rf /var/lib/apt/lists/*
COPY mesh mesh-cc /usr/bin/
ENV {var}={DIR}
VOLUME {DIR}
EXPOSE {PORT}/udp
STOPSIGNAL SIGTERM
HEALTHCHECK CMD [\"mesh\", \"status\"]
ENTRYPOINT [\"mesh\", \"agent\"]
END
docker build -t {NAME} -f Containerfile .

# Of root's powers it has these alone, and no job has any:
{needs}
# The cache is in memory, where a job's files cost least; the volume keeps the machine's key.
docker run -d --name {NAME} --restart unless-stopped \\
    --cap-drop ALL \\
{added}
    --security-opt no-new-privileges \\
    --tmpfs {DIR}/cache:exec,dev,mode=0700,size=8g \\
    -v {NAME}:{DIR} -p {PORT}:{PORT}/udp {NAME}

# Whether it can serve; and its way into the mesh, with the code that mesh pair shows on another machine, or, where nobody sits
# at it, by a token: mesh invite --as worker > token, and to docker run: -v ./token:/token:ro -e MESH_JOIN_FILE=/token
docker exec {NAME} mesh doctor
docker exec -it {NAME} mesh join CODE@HOST
",
        var = env::DIR,
        needs = needs.join("\n"),
        added = added.join("\n"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_opens_a_firewall_is_lines_that_a_shell_reads_and_opens_the_two_ports_alone() {
        let text = firewall();
        let read = std::process::Command::new("sh").args(["-n", "-c", &text]).output().expect("there is sh");
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
        let commands = text.lines().filter(|line| line.starts_with("sudo") && !line.ends_with("--reload"));
        assert!(commands.clone().all(|line| line.contains("6374") || line.contains("5353")) && commands.count() == 4);
    }

    #[test]
    fn the_commands_give_what_the_sandbox_needs_and_nothing_else() {
        let text = container();
        let added: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("--cap-add ")).collect();
        let needed: Vec<String> = CAPABILITIES.iter().map(|one| format!("{} \\", one.name)).collect();
        assert_eq!(added, needed);
        assert_eq!(text.matches("--cap-drop ALL").count(), 1);
        assert!(!text.contains("--privileged") && !text.contains("SYS_ADMIN"));
    }
}
