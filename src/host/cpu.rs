//! What this machine's processor runs (DO).

use mesh_proto::toolchain::Needs;

/// ELF's numbers of architectures (`e_machine`, System V ABI).
const X86_64: u16 = 62;
const AARCH64: u16 = 183;

/// What programs may need to run here. `level` is that of the x86-64 psABI; 0 elsewhere.
#[must_use]
pub fn processor() -> Needs {
    let machine = match std::env::consts::ARCH {
        // Another system's kernel runs none of ELF's programs.
        _ if cfg!(not(target_os = "linux")) => 0,
        "x86_64" => X86_64,
        "aarch64" => AARCH64,
        _ => 0,
    };
    Needs { machine, level: level() }
}

/// The highest level whose instructions are all there: x86-64 psABI, table "Micro-Architecture Levels".
#[cfg(target_arch = "x86_64")]
fn level() -> u8 {
    use std::arch::is_x86_feature_detected as has;
    let v2 = has!("cmpxchg16b") && has!("popcnt") && has!("sse3") && has!("sse4.1") && has!("sse4.2") && has!("ssse3");
    let v3 =
        has!("avx") && has!("avx2") && has!("bmi1") && has!("bmi2") && has!("f16c") && has!("fma") && has!("lzcnt");
    let v4 = has!("avx512f") && has!("avx512bw") && has!("avx512cd") && has!("avx512dq") && has!("avx512vl");
    match (v2, v3 && has!("movbe"), v4) {
        (true, true, true) => 4,
        (true, true, false) => 3,
        (true, false, _) => 2,
        (false, _, _) => 1,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn level() -> u8 {
    0
}

#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_no_higher_than_what_the_kernel_lists() {
        let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let line = flags.lines().find(|line| line.starts_with("flags")).unwrap();
        let has = |name: &str| line.split_whitespace().any(|flag| flag == name);
        let Needs { machine, level } = processor();
        assert_eq!(machine, X86_64);
        assert_eq!(level >= 2, has("cx16") && has("popcnt") && has("ssse3") && has("sse4_1") && has("sse4_2"));
        assert_eq!(level >= 3, has("avx2") && has("bmi2") && has("fma") && has("movbe") && has("f16c") && has("abm"));
    }
}
