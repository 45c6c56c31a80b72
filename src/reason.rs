//! Why a unit was compiled here: the stable reason codes that `mesh explain`, `mesh status` and JSON show (DECIDE).

macro_rules! reasons {
    ($($variant:ident $code:literal $text:literal $hint:literal;)*) => {
        on_wire! {
            /// Why a unit ran on this machine. Codes are part of the interface: they are added, never renamed.
            #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
            pub enum Reason {
                $(#[doc = $text] $variant,)*
            }
        }

        impl Reason {
            /// Every reason, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The code, as in JSON and `mesh help CODE`.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// One sentence that says why.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// What a person can do about it; empty if nothing.
            #[must_use]
            pub fn hint(self) -> &'static str {
                match self { $(Self::$variant => $hint,)* }
            }
        }
    };
}

reasons! {
    NotCompile "NOT_COMPILE" "The command does not compile one source to one object (it links, preprocesses or asks the compiler something)." "";
    Stdin "STDIN" "The source is read from standard input." "";
    MultiSource "MULTI_SOURCE" "The command names no source or several." "Compile one source per command.";
    Language "LANGUAGE" "The source's language is not one that mesh distributes." "";
    NativeArch "NATIVE_ARCH" "The command asks for this machine's own processor (-march=native), and what that means here could not be found out." "Write the architecture out, such as -march=x86-64-v3.";
    Plugin "PLUGIN" "The command loads a compiler plug-in." "";
    ProfileUse "PROFILE_USE" "The command uses recorded profile data." "";
    CoveragePath "COVERAGE_PATH" "The command makes coverage notes with paths of its own." "";
    Modules "MODULES" "The command uses modules." "";
    PchCreate "PCH_CREATE" "The command makes a precompiled header." "";
    PchUse "PCH_USE" "A precompiled header lies beside a header that the unit may include." "";
    SaveTemps "SAVE_TEMPS" "The command keeps or dumps intermediate files." "";
    Assembler "ASSEMBLER" "The source is assembler, or passes options to the assembler that name files." "";
    AsmIncbin "ASM_INCBIN" "The unit includes a file through the assembler (.incbin)." "";
    UnknownOption "UNKNOWN_OPTION" "An option that mesh does not know, or does not distribute, may name something on this machine." "Report the option, so that mesh learns it.";
    ToolchainOption "TOOLCHAIN_OPTION" "The command takes parts of the compiler from a place of its own (-B, -specs, --gcc-toolchain, -resource-dir and their kin)." "Name the compiler that has these parts built in.";
    SpecialOutput "SPECIAL_OUTPUT" "The output is not a regular file in a directory that exists." "";
    ResponseFile "RESPONSE_FILE_UNREADABLE" "A response file (@file) could not be read." "";
    Environment "ENVIRONMENT" "An environment variable changes what the compiler reads or writes in a way that is not distributed." "";
    TooLarge "TOO_LARGE" "The command or its inputs pass a limit." "";
    Probe "PROBE" "The command looks like a configure-time check, which is faster here." "";
    Timestamp "TIMESTAMP" "The unit uses the time of its compilation (__DATE__, __TIME__ or __TIMESTAMP__)." "Set SOURCE_DATE_EPOCH, which gcc and clang 16 or newer honour.";
    ComputedInclude "COMPUTED_INCLUDE" "An include's name is computed in a way that only the compiler can resolve." "";
    Unreadable "UNREADABLE" "The source or a header could not be read." "";
    Changing "CHANGING" "A file changed while it was being read." "";
    Compiler "COMPILER" "The program is not a compiler that mesh knows, or answers to questions about its parts failed." "mesh distributes gcc and clang; name the compiler's own binary.";
    Wrapper "WRAPPER" "The compiler is a script or a small program that runs another one." "Name the compiler that it runs, with the options that it adds.";
    StandIn "STAND_IN" "The program is not a compiler but a link to another launcher (ccache, distcc, icecc or their kin)." "Name the compiler itself; ccache can call mesh (CCACHE_PREFIX=mesh-cc).";
    Unproved "UNPROVED" "With nothing but its own files this compiler makes something else than here, so no other machine is trusted with it." "mesh toolchain shows what differed.";
    OtherRoot "OTHER_ROOT" "The command runs in another root, mount namespace or container than the agent." "";
    NoAgent "NO_AGENT" "No agent answered in time." "Run: mesh up";
    NoMesh "NO_MESH" "This machine is in no mesh." "Run: mesh up, then mesh pair or mesh join CODE.";
    NoPeer "NO_PEER" "No other machine of the mesh is connected." "Run: mesh peers";
    NoMatch "NO_MATCH" "No connected machine has exactly this compiler, and none can be sent it." "Run: mesh toolchain";
    PeersBusy "PEERS_BUSY" "All matching machines were busy, and this one was free sooner." "";
    LocalIdle "LOCAL_IDLE" "This machine was free and expected to finish first." "";
    PeerLost "PEER_LOST" "The machine that had the job was lost or refused it, and no other took it." "";
    RemoteError "REMOTE_ERROR" "The other machine could not run the job." "";
    CompileError "COMPILE_ERROR" "The compile failed remotely; errors are always shown by this machine's own compiler." "";
    Discrepancy "DISCREPANCY" "The remote result was not exactly what the inputs allow, so it was dropped." "Please report it with mesh explain's output.";
    Deadline "DEADLINE" "The job passed its deadline." "";
    DiskFull "DISK_FULL" "The result could not be written beside its target." "";
    ForcedLocal "FORCED_LOCAL" "MESH=off, or a nested mesh, asked for a local compile." "";
    Role "ROLE" "This machine's role does not let it submit." "";
    Policy "POLICY" "Only machines of the mesh's owners may compile it (MESH_TRUSTED_ONLY), and none of those that have this compiler takes it." "mesh peers -o wide shows which machines are owners'.";
    Leaving "LEAVING" "The agent is shutting down." "";
    ToolchainComing "TOOLCHAIN_COMING" "No connected machine has this compiler yet; it is being made ready to be sent, or is on its way." "Wait a moment: mesh toolchain shows how far it is.";
    IllegalInstruction "ILLEGAL_INSTRUCTION" "The compiler met an instruction there that the other machine's processor does not have; that machine is not used for it for an hour." "";
    PeersPaused "PEERS_PAUSED" "The machines that have this compiler do not compile for others now." "mesh peers shows why.";
    RemoteOom "REMOTE_OOM" "The unit had not enough memory on another machine." "";
}

impl core::fmt::Display for Reason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_distinct_and_every_text_a_sentence() {
        let mut codes: Vec<_> = Reason::ALL.iter().map(|r| r.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert!(reason.text().ends_with('.'), "{reason}");
        }
    }
}
