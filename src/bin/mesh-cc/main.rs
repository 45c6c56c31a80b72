//! The launcher alone: `mesh-cc gcc -c x.c`, for build systems that want one word (DO).
//!
//! On Linux it is a freestanding program: no standard library, no C library, no allocation; [`launcher`] takes the usual
//! path and hands everything else over to `mesh`, in which the whole launcher is. Elsewhere it is that launcher itself,
//! and so for a linter that looks at it as a test, which needs the standard library.
#![cfg_attr(all(freestanding, not(test)), no_std, no_main)]

/// Types that are stored and sent elsewhere are neither here.
#[cfg(all(freestanding, not(test)))]
macro_rules! on_wire {
    ($item:item) => {
        $item
    };
}

#[cfg(all(freestanding, not(test)))]
mod compiler;
#[cfg(all(freestanding, not(test)))]
#[path = "../../env.rs"]
#[allow(dead_code, unreachable_pub, reason = "the library's file, in which the agent's variables are too")]
mod env;
#[cfg(all(freestanding, not(test)))]
mod find;
#[cfg(all(freestanding, not(test)))]
mod kernel;
#[cfg(all(freestanding, not(test)))]
#[path = "../../launch/mod.rs"]
#[allow(unreachable_pub, reason = "the library's modules, seen from within a program")]
mod launch;
#[cfg(all(freestanding, not(test)))]
mod launcher;
#[cfg(all(freestanding, not(test)))]
#[path = "../../reason.rs"]
#[allow(dead_code, unreachable_pub, reason = "its words are for people, which the launcher in mesh speaks to")]
mod reason;
#[cfg(all(freestanding, not(test)))]
mod words;

#[cfg(any(test, not(freestanding)))]
fn main() {
    use mesh::cmd::cc::{Called, called, run};
    let words: Vec<std::ffi::OsString> = std::env::args_os().collect();
    match called(words.clone()) {
        Called::Launcher { words, masquerade } => run(words, masquerade),
        // Under any other name it is still the launcher.
        Called::Mesh => run(words.into_iter().skip(1).collect(), false),
    }
}
