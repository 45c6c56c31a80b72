//! Links `mesh-cc` as a freestanding program where that is supported (DO).
//!
//! A C library's start costs ten times as much as all that the launcher does: in a virtual machine it executes dozens of
//! CPUID instructions, and each is a trap.

/// Processors for which `src/bin/mesh-cc/kernel` has an entry and system calls.
const PROCESSORS: &[&str] = &["x86_64", "aarch64"];
/// No C library and no start files, nothing shared, a fixed address, so that nothing is relocated; as few pages as can be.
const LINK: &[&str] = &[
    "-nostartfiles",
    "-nostdlib",
    "-static",
    "-no-pie",
    "-Wl,--gc-sections",
    "-Wl,--build-id=none",
    "-Wl,-z,norelro",
    "-Wl,-z,noseparate-code",
];

fn main() {
    println!("cargo::rerun-if-changed=src/build.rs");
    println!("cargo::rustc-check-cfg=cfg(freestanding)");
    let target = |what: &str| std::env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    if target("OS") == "linux"
        && PROCESSORS.contains(&target("ARCH").as_str())
        && target("POINTER_WIDTH") == "64"
        && target("ENDIAN") == "little"
    {
        println!("cargo::rustc-cfg=freestanding");
        for argument in LINK {
            println!("cargo::rustc-link-arg-bin=mesh-cc={argument}");
        }
    }
}
