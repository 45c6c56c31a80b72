//! argv → command → exit code.
use mesh::cmd::cc::{Called, called, run};

fn main() {
    if mesh::sandbox::is_child() {
        mesh::sandbox::child_main();
    }
    match called(std::env::args_os().collect()) {
        Called::Launcher { words, masquerade } => run(words, masquerade),
        Called::Mesh => std::process::exit(mesh::cmd::main().into()),
    }
}
