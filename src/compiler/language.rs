//! Which language a source is in, by `-x`, by its extension and by the driver (DECIDE).

use super::invocation::Family;
use super::plan::Language;
use crate::launch::names::basename;
use crate::reason::Reason;

/// A name's length without its extension, or `None` if it has none: a leading dot begins a name, not an extension.
pub(super) fn stem_len(path: &[u8]) -> Option<usize> {
    let base = path.len() - basename(path).len();
    let dot = path.iter().rposition(|b| *b == b'.')?;
    (dot > base).then_some(dot)
}

/// The language that `-x NAME` asks for.
///
/// # Errors
/// The reason why a source in it is compiled here.
pub(super) fn of_name(name: &[u8]) -> Result<Language, Reason> {
    match name {
        b"c" => Ok(Language::C),
        b"c++" => Ok(Language::Cxx),
        b"objective-c" => Ok(Language::ObjC),
        b"objective-c++" => Ok(Language::ObjCxx),
        b"cpp-output" => Ok(Language::PreprocessedC),
        b"c++-cpp-output" => Ok(Language::PreprocessedCxx),
        b"assembler" | b"assembler-with-cpp" => Err(Reason::Assembler),
        b"c++-module" | b"c++-header-unit" | b"c++-header-unit-header" => Err(Reason::Modules),
        _ if name.ends_with(b"-header") => Err(Reason::PchCreate),
        _ => Err(Reason::Language),
    }
}

/// The language of a source that no `-x` names.
///
/// # Errors
/// The reason why such a source is compiled here.
pub(super) fn of_path(path: &[u8], family: Family, cxx_driver: bool) -> Result<Language, Reason> {
    let extension = stem_len(path).map_or(&b""[..], |dot| &path[dot + 1..]);
    let language = match extension {
        b"c" => Language::C,
        b"i" => Language::PreprocessedC,
        b"cc" | b"cp" | b"cxx" | b"cpp" | b"c++" | b"C" | b"CPP" => Language::Cxx,
        b"CC" | b"CXX" | b"C++" if family == Family::Clang => Language::Cxx,
        b"ii" => Language::PreprocessedCxx,
        b"m" => Language::ObjC,
        b"mm" | b"M" => Language::ObjCxx,
        b"s" | b"S" | b"sx" | b"asm" => return Err(Reason::Assembler),
        b"h" | b"hh" | b"H" | b"hp" | b"hxx" | b"hpp" | b"HPP" | b"h++" | b"tcc" => return Err(Reason::PchCreate),
        b"cppm" | b"ccm" | b"cxxm" | b"c++m" | b"ixx" | b"mpp" | b"iim" | b"pcm" => return Err(Reason::Modules),
        _ => return Err(Reason::Language),
    };
    // Both C++ drivers take C for C++, and leave Objective-C as it is.
    Ok(match language {
        Language::C if cxx_driver => Language::Cxx,
        Language::PreprocessedC if cxx_driver => Language::PreprocessedCxx,
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_case_of_an_extension_matters() {
        let of = |path: &str| of_path(path.as_bytes(), Family::Gcc, false);
        assert_eq!(of("a.c"), Ok(Language::C));
        assert_eq!(of("a.C"), Ok(Language::Cxx));
        assert_eq!(of("a.CC"), Err(Reason::Language));
        assert_eq!(of_path(b"a.CC", Family::Clang, false), Ok(Language::Cxx));
        assert_eq!(of("d.c/x"), Err(Reason::Language));
        assert_eq!(of(".c"), Err(Reason::Language));
    }
}
