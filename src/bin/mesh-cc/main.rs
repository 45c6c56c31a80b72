//! The launcher alone: `mesh-cc gcc -c x.c`, for build systems that want one word (DO).
//!
//! On Linux it is a freestanding program: no standard library, no C library, no allocation; [`launcher`] takes the usual
//! path and hands everything else over to `mesh`, in which the whole launcher is. Elsewhere it is that launcher itself.
#![cfg_attr(freestanding, no_std, no_main)]

/// Types that are stored and sent elsewhere are neither here.
#[cfg(freestanding)]
macro_rules! on_wire {
    ($item:item) => {
        $item
    };
}

#[cfg(freestanding)]
mod compiler;
#[cfg(freestanding)]
#[path = "../../env.rs"]
#[allow(dead_code, unreachable_pub, reason = "the library's file, in which the agent's variables are too")]
mod env;
#[cfg(freestanding)]
mod find;
#[cfg(freestanding)]
mod kernel;
#[cfg(freestanding)]
#[path = "../../launch/mod.rs"]
#[allow(unreachable_pub, reason = "the library's modules, seen from within a program")]
mod launch;
#[cfg(freestanding)]
mod launcher;
#[cfg(freestanding)]
#[path = "../../reason.rs"]
#[allow(dead_code, unreachable_pub, reason = "its words are for people, which the launcher in mesh speaks to")]
mod reason;
#[cfg(freestanding)]
mod words;

#[cfg(not(freestanding))]
fn main() {
    use mesh::cmd::cc::{Called, called, run};
    let words: Vec<std::ffi::OsString> = std::env::args_os().collect();
    match called(words.clone()) {
        Called::Launcher { words, masquerade } => run(words, masquerade),
        // Under any other name it is still the launcher.
        Called::Mesh => run(words.into_iter().skip(1).collect(), false),
    }
}
