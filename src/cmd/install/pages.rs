//! The manual's pages and what shells need to complete mesh's words (DO).

use super::super::failure::{Failure, complain};
use crate::cli::Cli;
use clap::CommandFactory;
use clap_complete::{Shell, generate};
use mesh_proto::digest::{Digest, hex};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The program's name in them.
const NAME: &str = "mesh";

/// Files, written or to be written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pages {
    /// Each with the digest of what was written.
    files: Vec<(PathBuf, String)>,
    /// Directories that were made for them, each after the one that it lies in.
    dirs: Vec<PathBuf>,
}

/// What a shell needs.
pub(in crate::cmd) fn completions(shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    generate(shell, &mut Cli::command(), NAME, &mut text);
    text
}

/// The manual: the names of its pages, and their source.
pub(in crate::cmd) fn manual() -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut all = Cli::command().name(NAME);
    all.build();
    let mut pages = vec![(format!("{NAME}.1"), page(&all)?)];
    for one in all.get_subcommands().filter(|one| one.get_name() != "help" && !one.is_hide_set()) {
        let name = format!("{NAME}-{}", one.get_name());
        pages.push((format!("{name}.1"), page(one)?));
    }
    Ok(pages)
}

fn page(of: &clap::Command) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    clap_mangen::Man::new(of.clone().version(env!("CARGO_PKG_VERSION"))).render(&mut text)?;
    Ok(text)
}

/// Where shells and `man` look below a user's data directory, and what lies there.
pub(super) fn files(data: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>, Failure> {
    let shells = [
        ("bash-completion/completions/mesh", Shell::Bash),
        ("zsh/site-functions/_mesh", Shell::Zsh),
        ("fish/vendor_completions.d/mesh.fish", Shell::Fish),
    ];
    let mut all: Vec<(PathBuf, Vec<u8>)> =
        shells.iter().map(|(at, shell)| (data.join(at), completions(*shell))).collect();
    let pages = manual().map_err(|e| Failure::new(format!("the manual could not be made: {e}")))?;
    all.extend(pages.into_iter().map(|(name, text)| (data.join("man/man1").join(name), text)));
    Ok(all)
}

/// Whether a file is a page of the manual.
pub(super) fn is_page(path: &Path) -> bool {
    path.extension().is_some_and(|section| section == "1")
}

impl Pages {
    /// Writes those whose place is free or held by what was written before. What is somebody else's stays, and is named.
    pub(super) fn write(&mut self, files: &[(PathBuf, Vec<u8>)]) -> Result<(), Failure> {
        for (path, text) in files {
            let before = std::fs::read(path).ok();
            let is_own = |bytes: &Vec<u8>| bytes == text || self.is_own(path, bytes);
            if before.as_ref().is_some_and(|bytes| !is_own(bytes)) {
                complain(&format!("{} is there and not by mesh, and stays", path.display()));
                continue;
            }
            let failed = |e: std::io::Error| Failure::new(format!("{} cannot be written: {e}", path.display()));
            self.make_parents(path).and_then(|()| std::fs::write(path, text)).map_err(failed)?;
            self.files.retain(|(had, _)| had != path);
            self.files.push((path.clone(), digest(text)));
        }
        Ok(())
    }

    fn make_parents(&mut self, path: &Path) -> std::io::Result<()> {
        let missing: Vec<&Path> = path.ancestors().skip(1).take_while(|dir| !dir.exists()).collect();
        for dir in missing.into_iter().rev() {
            std::fs::create_dir(dir)?;
            self.dirs.push(dir.to_owned());
        }
        Ok(())
    }

    fn is_own(&self, path: &Path, bytes: &[u8]) -> bool {
        self.files.iter().any(|(had, written)| had == path && *written == digest(bytes))
    }

    /// Removes those that are still what was written, and the directories if nothing else lies in them; gives how many.
    pub(super) fn remove(&self) -> usize {
        let own =
            self.files.iter().filter(|(path, _)| std::fs::read(path).is_ok_and(|bytes| self.is_own(path, &bytes)));
        let gone = own.filter(|(path, _)| std::fs::remove_file(path).is_ok()).count();
        for dir in self.dirs.iter().rev() {
            let _ = std::fs::remove_dir(dir);
        }
        gone
    }
}

fn digest(bytes: &[u8]) -> String {
    hex(&Digest::of(bytes).0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_removed_and_nothing_else_is_touched() {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("share");
        let all = files(&data).expect("the manual");
        assert!(all.len() > 30, "{}", all.len());
        let theirs = data.join("man/man1/mesh-up.1");
        std::fs::create_dir_all(theirs.parent().expect("has one")).expect("fresh");
        std::fs::write(&theirs, "theirs").expect("fresh");
        let mut pages = Pages::default();
        for _ in 0..2 {
            pages.write(&all).expect("writes");
        }
        assert_eq!(pages.files.len(), all.len() - 1);
        assert_eq!(std::fs::read(&theirs).expect("there"), b"theirs");
        // The next version's: its own are replaced, and one that was changed by hand is not.
        let changed = data.join("man/man1/mesh.1");
        std::fs::write(&changed, "changed").expect("own");
        let next: Vec<_> = all.iter().map(|(path, text)| (path.clone(), [&text[..], b"\n"].concat())).collect();
        pages.write(&next).expect("writes");
        assert_eq!(std::fs::read(&changed).expect("there"), b"changed");
        assert_eq!(pages.remove(), all.len() - 2);
        assert!(theirs.exists() && changed.exists() && !data.join("zsh").exists());
    }

    #[test]
    fn the_manual_names_every_command_and_bash_reads_the_completions() {
        let pages = manual().expect("pages");
        let all = String::from_utf8(pages[0].1.clone()).expect("text");
        for command in ["with", "pair", "forget", "peers", "setup"] {
            assert!(pages.iter().any(|(name, _)| *name == format!("mesh-{command}.1")), "{command}");
            assert!(all.contains(&format!("mesh\\-{command}(1)")), "{command}");
        }
        let text = String::from_utf8(completions(Shell::Bash)).expect("text");
        assert!(text.contains("forget"));
        let read = std::process::Command::new("bash").args(["-n", "-c", &text]).output();
        assert!(read.is_ok_and(|read| read.status.success()));
    }
}
