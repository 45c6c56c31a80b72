//! `mesh install` and `mesh uninstall`: the agent as a service of this user (DO).

mod links;
pub(super) mod pages;
mod service;

use super::{
    client::{is_gone, places},
    down,
    failure::{Failure, complain, out, out_raw},
    start, up,
};
use crate::{cli::Install, env, places::Places, view::rows::count};
use links::Links;
use pages::Pages;
use serde::{Deserialize, Serialize};
use service::{Facts, Manager, Service, is_own, service};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Which manager this system has.
const MANAGER: Manager = if cfg!(target_os = "macos") { Manager::Launchd } else { Manager::Systemd };
/// What the agent must see as this shell does: where mesh's files are, and where compilers are.
const KEPT: &[&str] = &[env::DIR, env::SOCKET, "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "PATH"];
/// What was installed, in the state directory.
const RECORD: &str = "install.json";

/// What was installed: `mesh uninstall` undoes exactly that.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    service: Option<PathBuf>,
    links: Vec<Links>,
    #[serde(default)]
    pages: Pages,
}

impl Record {
    fn path(places: &Places) -> PathBuf {
        places.state.join(RECORD)
    }

    fn read(places: &Places) -> Result<Option<Self>, Failure> {
        let path = Self::path(places);
        let odd = |why: String| Failure::new(format!("the record {} cannot be read: {why}", path.display()));
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| odd(e.to_string())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(odd(e.to_string())),
        }
    }

    fn write(&self, places: &Places) -> Result<(), Failure> {
        start::private_dir(&places.state).map_err(Failure::new)?;
        write(
            &Self::path(places),
            serde_json::to_string_pretty(self).map_err(|e| Failure::new(e.to_string()))?.as_str(),
        )
    }
}

pub(super) fn install(args: &Install) -> Result<u8, Failure> {
    let places = places()?;
    let mesh = program()?;
    let service = this_service(&mesh)?;
    let links = match &args.links {
        Some(dir) => {
            let dir = std::path::absolute(dir).map_err(|e| Failure::new(format!("{}: {e}", dir.display())))?;
            let path = std::env::var_os("PATH");
            Some(Links::plan(&dir, &mesh.with_file_name("mesh-cc"), path.as_deref())?)
        }
        None => None,
    };
    let pages = pages::files(&data_home()?)?;
    if args.print {
        print(&service, links.as_ref(), &pages);
        return Ok(0);
    }
    match std::fs::read_to_string(&service.path) {
        Ok(text) if !is_own(&text) => {
            let text = format!("{} is there and not by mesh. Move it away first", service.path.display());
            return Err(Failure::new(text));
        }
        _ => {}
    }
    let mut record = Record::read(&places)?.unwrap_or_default();
    record.service = Some(service.path.clone());
    if let Some(links) = &links {
        let before = record.links.iter().position(|had| had.dir == links.dir).map(|at| record.links.remove(at));
        record.links.push(links.clone().and(before));
    }
    // First the record: whatever comes of the rest can be undone.
    record.write(&places)?;
    write(&service.path, &service.text)?;
    out(&format!("mesh: wrote {}", service.path.display()));
    if let Some(links) = &links {
        links.make()?;
        out(&format!("mesh: {} lead to {}", listed(links.paths()), links.target.display()));
        out(&format!("mesh: {}", links.advice()));
    }
    let written = record.pages.write(&pages);
    record.write(&places)?;
    written?;
    out("mesh: wrote its manual (man mesh) and completions for bash, zsh and fish");
    begin(&places, &service, &args.name)
}

/// Where this user's manual and completions are looked for.
fn data_home() -> Result<PathBuf, Failure> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".local/share")))
        .ok_or_else(|| Failure::new("HOME is not set, so there is no place for a service. Set HOME"))
}

/// Has the service manager start the agent, if one runs here, and makes a mesh as `mesh up` does.
fn begin(places: &Places, service: &Service, name: &str) -> Result<u8, Failure> {
    if !manager_runs() {
        out(
            "mesh: no service manager runs for this user here, so nothing starts the agent by itself. Start it with: mesh up",
        );
        return Ok(0);
    }
    // An agent in the background would hold the place of the service's.
    if !is_gone(places) {
        down::stop(places)?;
    }
    service.start.iter().try_for_each(|words| run(words))?;
    let now = up::wait(places)?;
    out(&up::started(&now));
    up::member(places, name, up::asks())?;
    if MANAGER == Manager::Systemd {
        out("mesh: it runs while you are logged in. To have it always: loginctl enable-linger");
    }
    Ok(0)
}

pub(super) fn uninstall() -> Result<u8, Failure> {
    let places = places()?;
    let Some(record) = Record::read(&places)? else {
        out("mesh: nothing is installed");
        return Ok(0);
    };
    if let Some(path) = &record.service {
        remove_service(path)?;
    }
    for links in &record.links {
        let gone = links.remove();
        if !gone.is_empty() {
            out(&format!("mesh: removed {}", listed(gone.into_iter())));
        }
    }
    let pages = record.pages.remove();
    if pages > 0 {
        out(&format!("mesh: removed {} of its manual and completions", count(pages as u64, "file")));
    }
    let path = Record::path(&places);
    std::fs::remove_file(&path).map_err(|e| Failure::new(format!("{} cannot be removed: {e}", path.display())))?;
    Ok(0)
}

fn remove_service(path: &Path) -> Result<(), Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) if is_own(&text) => {}
        Ok(_) => {
            complain(&format!("{} was changed into something else and stays", path.display()));
            return Ok(());
        }
        Err(_) => return Ok(()),
    }
    let service = this_service(&program()?)?;
    let runs = manager_runs();
    if runs && let Some(failure) = service.stop.iter().find_map(|words| run(words).err()) {
        complain(&failure.text);
    }
    std::fs::remove_file(path).map_err(|e| Failure::new(format!("{} cannot be removed: {e}", path.display())))?;
    if let Some(link) = service.enabled.filter(|link| link.is_symlink()) {
        let _ = std::fs::remove_file(link);
    }
    if runs {
        service.after.iter().try_for_each(|words| run(words))?;
    }
    out(&format!("mesh: removed {}", path.display()));
    Ok(())
}

fn program() -> Result<PathBuf, Failure> {
    start::mesh_program().ok_or_else(|| Failure::new("the mesh program cannot find itself"))
}

fn this_service(program: &Path) -> Result<Service, Failure> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let home = absolute("HOME")
        .ok_or_else(|| Failure::new("HOME is not set, so there is no place for a service. Set HOME"))?;
    let value = |name: &&str| std::env::var(name).ok().filter(|v| !v.is_empty()).map(|v| ((*name).to_owned(), v));
    let env: Vec<(String, String)> = KEPT.iter().filter_map(value).collect();
    let config_home = absolute("XDG_CONFIG_HOME");
    let facts = Facts {
        program,
        home: &home,
        config_home: config_home.as_deref(),
        env: &env,
        uid: rustix::process::geteuid().as_raw(),
    };
    service(MANAGER, &facts).map_err(|e| Failure::new(e.to_string()))
}

fn print(service: &Service, links: Option<&Links>, pages: &[(PathBuf, Vec<u8>)]) {
    out(&format!("# would write {}", service.path.display()));
    out_raw(&service.text);
    if let Some(links) = links {
        out("\n# would make the links");
        links.paths().for_each(|link| out(&format!("{} -> {}", link.display(), links.target.display())));
    }
    out("\n# would write its manual and completions");
    let (manual, completions): (Vec<_>, Vec<_>) =
        pages.iter().map(|(path, _)| path).partition(|path| pages::is_page(path));
    completions.iter().for_each(|path| out(&path.display().to_string()));
    if let Some((first, rest)) = manual.split_first() {
        out(&format!("{} and {} beside it, one for each command", first.display(), count(rest.len() as u64, "page")));
    }
    out(if manager_runs() { "\n# would run" } else { "\n# would run, if a service manager ran for this user" });
    service.start.iter().for_each(|words| out(&words.join(" ")));
}

/// Whether there is a service manager that would start the agent.
fn manager_runs() -> bool {
    let quiet = |words: &[&str]| {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|s| s.success())
    };
    match MANAGER {
        Manager::Launchd => true,
        Manager::Systemd => quiet(&["systemctl", "--user", "show-environment"]),
    }
}

fn run(words: &[String]) -> Result<(), Failure> {
    let line = words.join(" ");
    let output = Command::new(&words[0]).args(&words[1..]).stdin(Stdio::null()).output();
    let output = output.map_err(|e| Failure::new(format!("{} could not be run: {e}", words[0])))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("it gave no reason").trim().to_owned();
    Err(Failure::new(format!("\"{line}\" did not succeed: {}. Undo with: mesh uninstall", said.trim_end_matches('.'))))
}

/// Writes a file whole or not at all.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let dir = path.parent().unwrap_or(path);
    let written = std::fs::create_dir_all(dir)
        .and_then(|()| std::fs::write(&temporary, text))
        .and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(|e| Failure::new(format!("{} cannot be written: {e}", path.display())))
}

fn listed(paths: impl Iterator<Item = PathBuf>) -> String {
    paths.map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}
