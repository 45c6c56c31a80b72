//! What was counted, minute by minute, below the state directory: for longer than an agent lives (DO).
//!
//! A line is appended once a minute at most, and none while nothing happens. No other write is needed, and none is synced: what
//! a crash takes is a minute's counts.

use super::Agent;
use crate::{
    host::{self, wall_ms},
    view::history::{self, MINUTE_MS, Minute, Sums},
};
use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// The file below the state directory; its name carries the version of its form.
const NAME: &str = "history-v1";
/// A file that is larger is written anew, bytes.
const BYTES_MAX: u64 = 4 << 20;
/// What is kept of it then, bytes.
const KEPT_BYTES_MAX: usize = 2 << 20;
/// How often it is looked whether something was counted.
const PACE: Duration = Duration::from_millis(MINUTE_MS);

/// The file, and what of the counters is in it.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    written: Mutex<Sums>,
}

impl History {
    /// The history below this state directory. Touches nothing.
    #[must_use]
    pub fn new(state: &Path) -> Self {
        Self { path: state.join(NAME), written: Mutex::default() }
    }

    /// What the file holds; nothing if there is none.
    #[must_use]
    pub fn read(&self) -> Vec<Minute> {
        history::read(&host::read_at_most(&self.path, 2 * BYTES_MAX).unwrap_or_default())
    }

    /// Adds by how much the counters have grown since the last time; writes nothing if they have not.
    ///
    /// # Errors
    /// If it cannot be written: it is tried again with the next.
    pub fn add(&self, now: Sums, now_ms: u64) -> io::Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let grown = history::grown(&written, &now);
        if grown.is_empty() {
            return Ok(());
        }
        let line = history::line(&Minute { at: now_ms / MINUTE_MS, grown });
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&self.path)?;
        let length = file.seek(SeekFrom::End(0))?;
        // What was torn must not take the next line with it.
        let torn = length > 0 && last_byte(&mut file)? != b'\n';
        file.write_all(if torn { format!("\n{line}") } else { line }.as_bytes())?;
        *written = now;
        if length > BYTES_MAX { self.shorten(now_ms) } else { Ok(()) }
    }

    /// Forgets everything that was counted until now.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn zero(&self, now: Sums) -> io::Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => *written = now,
        }
        Ok(())
    }

    /// Takes out what is too old, and what is too much. Another file takes its place whole.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn shorten(&self, now_ms: u64) -> io::Result<()> {
        let held = self.read();
        let lines = history::kept(held.clone(), now_ms, KEPT_BYTES_MAX);
        if lines.len() == held.len() {
            return Ok(());
        }
        let temporary = self.path.with_extension("new");
        std::fs::write(&temporary, lines.concat())?;
        std::fs::rename(&temporary, &self.path)
    }
}

fn last_byte(file: &mut File) -> io::Result<u8> {
    let mut byte = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut byte)?;
    Ok(byte[0])
}

/// Adds what was counted, once a minute for as long as the agent lives.
pub(super) async fn keep(agent: Arc<Agent>) {
    let shortening = agent.clone();
    let _ = tokio::task::spawn_blocking(move || shortening.history.shorten(wall_ms())).await;
    loop {
        tokio::time::sleep(PACE).await;
        let adding = agent.clone();
        let _ = tokio::task::spawn_blocking(move || add(&adding)).await;
    }
}

/// Adds what was counted since the last time; blocking. Without it nothing but figures is missing.
pub(super) fn add(agent: &Agent) {
    if let Err(error) = agent.history.add(sums(agent), wall_ms()) {
        tracing::debug!(%error, "the counters' history could not be written");
    }
}

/// All counters of this agent.
pub(super) fn sums(agent: &Agent) -> Sums {
    let records = agent.records();
    history::sums(&super::command::counters(agent, &records), records.by_peer())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(requests: u64) -> Sums {
        [("requests".to_owned(), requests)].into()
    }

    #[test]
    fn what_was_counted_outlives_the_agent_and_nothing_is_written_while_nothing_happens() {
        let dir = tempfile::tempdir().expect("a directory");
        let one = History::new(dir.path());
        one.add(Sums::new(), 0).expect("nothing to do");
        assert!(!one.path.exists());
        one.add(counted(3), MINUTE_MS).expect("written");
        let length = || std::fs::metadata(dir.path().join(NAME)).expect("it is there").len();
        let before = length();
        one.add(counted(3), 2 * MINUTE_MS).expect("nothing to do");
        assert_eq!(length(), before);
        one.add(counted(5), 2 * MINUTE_MS).expect("written");
        // The machine goes down in the middle of a line; the next agent counts from zero.
        OpenOptions::new()
            .append(true)
            .open(&one.path)
            .and_then(|mut file| file.write_all(b"3 requests=9"))
            .expect("torn");
        let two = History::new(dir.path());
        two.add(counted(1), 4 * MINUTE_MS).expect("written");
        assert_eq!(history::total(&two.read(), 0), counted(6));
        assert_eq!(history::total(&two.read(), 2), counted(3));
    }

    #[test]
    fn it_is_set_to_zero_and_what_comes_then_counts() {
        let dir = tempfile::tempdir().expect("a directory");
        let history = History::new(dir.path());
        history.zero(Sums::new()).expect("nothing to remove");
        history.add(counted(3), 0).expect("written");
        history.zero(counted(4)).expect("removed");
        assert!(history.read().is_empty());
        history.add(counted(6), 0).expect("written");
        assert_eq!(history::total(&history.read(), 0), counted(2));
    }

    #[test]
    fn a_file_that_is_too_long_is_written_anew_with_what_is_newest() {
        let dir = tempfile::tempdir().expect("a directory");
        let history = History::new(dir.path());
        let line = |at: u64| history::line(&Minute { at, grown: counted(1) });
        let lines: String = (0..300_000).map(|n| line(5000 + n % 1000)).collect();
        assert!(lines.len() as u64 > BYTES_MAX);
        std::fs::write(&history.path, &lines).expect("written");
        history.add(counted(7), 6000 * MINUTE_MS).expect("written");
        let length = std::fs::metadata(&history.path).expect("it is there").len();
        assert!(length <= KEPT_BYTES_MAX as u64, "{length}");
        let held = history.read();
        assert_eq!(held.last().map(|minute| minute.at), Some(6000));
        assert!(held[0].at > 5000);
    }
}
