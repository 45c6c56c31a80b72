//! The two grammars of options (DECIDE).

on_wire! {
    /// Which grammar of options a compiler has.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum Family {
        /// GNU's gcc and g++.
        Gcc,
        /// LLVM's clang and clang++.
        Clang,
    }
}

impl Family {
    /// Its name, as in manifests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gcc => "gcc",
            Self::Clang => "clang",
        }
    }

    /// The family of this name.
    #[must_use]
    pub fn of_name(name: &[u8]) -> Option<Self> {
        [Self::Gcc, Self::Clang].into_iter().find(|family| family.name().as_bytes() == name)
    }
}
