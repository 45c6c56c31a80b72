//! `mesh explain FILE`: where a file was compiled, and why there (DO).

use super::{
    client::{self, places},
    failure::{Failure, out, out_raw},
};
use crate::{cli::Explain, view::rows};
use std::{
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Component, Path, PathBuf},
};

pub(super) fn run(args: &Explain) -> Result<u8, Failure> {
    let places = places()?;
    let cwd = super::cc::working_directory();
    let mut units = Vec::new();
    if args.file.as_os_str() == "last" {
        units = client::explain(&places, None)?;
    } else {
        for path in spellings(&cwd, &args.file) {
            units = client::explain(&places, Some(path.into_os_string().into_vec()))?;
            if !units.is_empty() {
                break;
            }
        }
    }
    let Some(last) = units.last() else { return Err(unknown(&args.file)) };
    if args.json {
        out(&rows::explain_json(&units).to_string());
        return Ok(0);
    }
    let shown = |path: &[u8]| relative(&cwd, path);
    out_raw(&rows::explain(last, crate::host::wall_ms(), shown));
    if units.len() > 1 {
        out(&format!(" {:<10} {} more of this file: --json shows them", "earlier", units.len() - 1));
    }
    Ok(0)
}

fn unknown(file: &Path) -> Failure {
    if file.as_os_str() == "last" {
        return Failure::new("nothing has been compiled through this agent yet");
    }
    Failure::new(format!(
        "nothing is known of {}. It was not compiled through this agent since it started, or under another name",
        rows::sanitised(&file.to_string_lossy())
    ))
}

/// The spellings by which a build may have named a file: as typed, without `.` and `..`, and by its real path.
fn spellings(cwd: &Path, file: &Path) -> Vec<PathBuf> {
    let typed = cwd.join(file);
    let mut normal = PathBuf::new();
    for part in typed.components() {
        match part {
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    let mut all = vec![typed.clone(), normal];
    all.extend(std::fs::canonicalize(&typed));
    // Compared as bytes: paths that differ in a `/./` are equal to `Path`, and not to the agent.
    let mut seen: Vec<PathBuf> = Vec::new();
    for path in all {
        if !seen.iter().any(|had| had.as_os_str() == path.as_os_str()) {
            seen.push(path);
        }
    }
    seen
}

/// A path as short as the reader knows it.
pub(super) fn relative(cwd: &Path, path: &[u8]) -> String {
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    path.strip_prefix(cwd).unwrap_or(path).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_under_every_spelling_that_a_build_may_use() {
        let paths = spellings(Path::new("/no/such"), Path::new("./a/../b.c"));
        assert_eq!(paths, ["/no/such/./a/../b.c", "/no/such/b.c"].map(PathBuf::from));
        assert_eq!(spellings(Path::new("/x"), Path::new("/no/b.c")), [PathBuf::from("/no/b.c")]);
        assert_eq!(relative(Path::new("/no"), b"/no/such/b.c"), "such/b.c");
        assert_eq!(relative(Path::new("/no"), b"/non/b.c"), "/non/b.c");
    }
}
