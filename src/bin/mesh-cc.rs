//! The launcher alone: `mesh-cc gcc -c x.c`, for build systems that want one word.
use mesh::cmd::cc::{Called, called, run};
use std::ffi::OsString;

fn main() {
    let words: Vec<OsString> = std::env::args_os().collect();
    match called(words.clone()) {
        Called::Launcher { words, masquerade } => run(words, masquerade),
        // Under any other name it is still the launcher.
        Called::Mesh => run(words.into_iter().skip(1).collect(), false),
    }
}
