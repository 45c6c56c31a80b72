//! argv → command → exit code.
fn main() {
    if mesh::sandbox::is_child() {
        mesh::sandbox::child_main();
    }
}
