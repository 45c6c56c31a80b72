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
