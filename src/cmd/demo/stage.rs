//! A directory with two agents of their own in it, which are gone with everything else when the demonstration ends (DO).

use super::super::{
    client::{ANSWER_TIME, Client, do_it, snapshot},
    down,
    failure::{Failure, INTERRUPTED, NO_AGENT, complain},
    start,
};
use crate::{
    agent::wire::{Ask, Tell},
    env,
    places::Places,
    view::snapshot::Snapshot,
};
use std::{
    ffi::OsString,
    fs::{DirBuilder, File},
    os::unix::{fs::DirBuilderExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};
use tokio::signal::unix::{SignalKind, signal};

/// An agent answers within this time after its start.
const START_TIME: Duration = Duration::from_secs(10);
/// Finding and comparing the compilers takes no longer.
const MEET_TIME: Duration = Duration::from_secs(120);
/// An agent that was told to stop is killed after this time.
const STOP_TIME: Duration = Duration::from_secs(5);
/// What both agents say of each other stays the same for this long before the build begins.
const SETTLE_TIME: Duration = Duration::from_millis(500);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// A Unix socket's path may be this long on every system, bytes.
const SOCKET_BYTES_MAX: usize = 103;

/// Set when the person or the system wants this to end.
#[derive(Debug, Clone, Default)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes over the signals that would end this process, so that what it started can be taken down first.
    pub(super) fn watch() -> Result<Self, Failure> {
        let failure = |e: std::io::Error| Failure::new(format!("signals cannot be watched: {e}"));
        let watch = Self::default();
        let flag = watch.0.clone();
        let (ready, is_ready) = mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failure)?;
        std::thread::spawn(move || {
            runtime.block_on(async move {
                let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
                let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = kinds else { return };
                let _ = ready.send(());
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                flag.store(true, Ordering::SeqCst);
            });
        });
        is_ready.recv().map_err(|_| Failure::new("signals cannot be watched"))?;
        Ok(watch)
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.is_set() { Err(Failure::coded(INTERRUPTED, "interrupted; everything was taken down")) } else { Ok(()) }
    }
}

/// The directory.
#[derive(Debug)]
pub(super) struct Stage {
    /// Where everything is.
    pub(super) dir: PathBuf,
    agents: Vec<(Places, Child)>,
    interrupt: Interrupt,
}

impl Stage {
    pub(super) fn new(interrupt: Interrupt) -> Result<Self, Failure> {
        let name = format!("mesh-demo-{}", std::process::id());
        let longest = |dir: &Path| dir.join(&name).join("provider/run/agent-1.sock").as_os_str().len();
        let mut temp = std::env::temp_dir();
        if longest(&temp) > SOCKET_BYTES_MAX {
            temp = PathBuf::from("/tmp");
        }
        // The real path, because a link on the way is one more thing that a reader would have to know.
        let temp = temp.canonicalize().unwrap_or(temp);
        let dir = temp.join(name);
        let made = DirBuilder::new().mode(0o700).create(&dir);
        made.map_err(|e| Failure::new(format!("the directory {} cannot be made: {e}", dir.display())))?;
        Ok(Self { dir, agents: Vec::new(), interrupt })
    }

    /// Starts an agent with a key, a store and a socket of its own; waits until it answers.
    pub(super) fn start(&mut self, name: &str) -> Result<Places, Failure> {
        let home = self.dir.join(name);
        let failure = |e: std::io::Error| Failure::new(format!("an agent could not be started: {e}"));
        std::fs::create_dir_all(home.join("config")).map_err(failure)?;
        // Announced nowhere: this is nobody's mesh but the demonstration's.
        let config = format!("name = \"{name}\"\n[discovery]\nannounce = \"off\"\n");
        std::fs::write(home.join("config/config.toml"), config).map_err(failure)?;
        let log = home.join("log");
        let file = File::create(&log).map_err(failure)?;
        let mesh = start::mesh_program().ok_or_else(|| Failure::new("the mesh program cannot find itself"))?;
        let mut command = Command::new(mesh);
        without_mesh(&mut command);
        command.args(["agent", "--port", "0"]).env(env::DIR, &home).env(env::LOOPBACK, "1").env(env::MODE, "full");
        // What is compared is to be compiled.
        command.env(env::CACHE, "off");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).current_dir("/").process_group(0);
        let child = command.spawn().map_err(failure)?;
        let places = places_in(&home)?;
        self.agents.push((places.clone(), child));
        self.until(START_TIME, &format!("{name}'s agent did not start"), |stage| {
            let ended = stage.agents.last_mut().and_then(|(_, child)| child.try_wait().ok().flatten());
            if ended.is_some() {
                return Err(Failure::new(format!("{name}'s agent ended at once: {}", last_line(&log))));
            }
            Ok(may_come(snapshot(&places))?.map(|_| ()))
        })?;
        Ok(places)
    }

    /// Asks again and again until there is an answer.
    fn until<T>(
        &mut self,
        limit: Duration,
        what: &str,
        mut ask: impl FnMut(&mut Self) -> Result<Option<T>, Failure>,
    ) -> Result<T, Failure> {
        let until = Instant::now() + limit;
        loop {
            self.interrupt.check()?;
            if let Some(answer) = ask(self)? {
                return Ok(answer);
            }
            if Instant::now() >= until {
                return Err(Failure::new(format!("{what} within {} seconds", limit.as_secs())));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Makes a mesh on one and joins it with the other, by a code, as two people would; gives the code and the address.
    pub(super) fn join(&mut self, inviter: &Places, joiner: &Places) -> Result<(String, String), Failure> {
        do_it(inviter, &Ask::Found { name: "demo".to_owned() }, ANSWER_TIME, |_| {})?;
        let mut window = Client::ask(inviter, &Ask::Pair { role: "owner".to_owned() }, MEET_TIME)?;
        let Tell::PairingCode { code, .. } = window.next()? else {
            return Err(Failure::new("the agent showed no code"));
        };
        let address = format!("127.0.0.1:{}", snapshot(inviter)?.port);
        let ask = Ask::Join { code: code.clone(), address: Some(address.clone()), leave: false };
        do_it(joiner, &ask, MEET_TIME, |_| {})?;
        while !matches!(window.next()?, Tell::Finished(_)) {}
        Ok((code, address))
    }

    /// Waits until the client sees the provider with compilers that are the same on both, and no more are being found.
    pub(super) fn met(&mut self, client: &Places) -> Result<Snapshot, Failure> {
        let mut last: Option<(Vec<String>, Instant)> = None;
        self.until(MEET_TIME, "the two agents did not agree on any compiler", |_| {
            let now = snapshot(client)?;
            let Some(peer) = now.peers.iter().find(|p| p.connected && !p.compilers.is_empty()) else { return Ok(None) };
            match &last {
                Some((had, since)) if *had == peer.compilers => Ok((since.elapsed() >= SETTLE_TIME).then_some(now)),
                _ => {
                    last = Some((peer.compilers.clone(), Instant::now()));
                    Ok(None)
                }
            }
        })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for (places, child) in &mut self.agents {
            // Whatever state it is in, it is gone afterwards.
            let _ = Client::ask(places, &Ask::Stop, STOP_TIME).and_then(|mut told| told.next());
            let until = Instant::now() + STOP_TIME;
            while Instant::now() < until && matches!(child.try_wait(), Ok(None)) {
                std::thread::sleep(LOOK);
            }
            let _ = child.kill();
            let _ = child.wait();
            // A launcher that found no agent may have started another one.
            let _ = down::stop(places);
        }
        if let Err(e) = std::fs::remove_dir_all(&self.dir) {
            complain(&format!("{} could not be removed: {e}", self.dir.display()));
        }
    }
}

/// No answer yet is no failure.
fn may_come(asked: Result<Snapshot, Failure>) -> Result<Option<Snapshot>, Failure> {
    match asked {
        Ok(now) => Ok(Some(now)),
        Err(e) if e.code == NO_AGENT => Ok(None),
        Err(e) => Err(e),
    }
}

fn last_line(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let line = text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("it gave no reason");
    super::super::failure::told(line)
}

/// Takes everything of mesh's own out of a command's environment: this is not the person's mesh.
pub(super) fn without_mesh(command: &mut Command) {
    let own = |name: &OsString| name.as_encoded_bytes().starts_with(b"MESH");
    for (name, _) in std::env::vars_os().filter(|(name, _)| own(name)) {
        command.env_remove(name);
    }
}

fn places_in(home: &Path) -> Result<Places, Failure> {
    let var = |name: &str| (name == env::DIR).then(|| home.as_os_str().to_owned());
    let uid = rustix::process::geteuid().as_raw();
    Places::find(var, uid, Path::exists).ok_or_else(|| Failure::new(format!("{} is not absolute", home.display())))
}
