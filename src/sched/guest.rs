//! What this machine lends now: its owner's wish and its own state (DECIDE).

use mesh_proto::message::Closed;

/// What the owner wishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Mode {
    /// Nothing is lent.
    Off,
    /// All but a core, while nobody uses the machine.
    Idle,
    /// What its owner leaves, all the time.
    Share,
    /// Everything.
    Full,
}

impl Mode {
    /// As people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Idle => "idle",
            Self::Share => "share",
            Self::Full => "full",
        }
    }

    /// The mode that people write so.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Off, Self::Idle, Self::Share, Self::Full].into_iter().find(|mode| mode.name() == name)
    }
}

/// On what terms this machine compiles for others now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Compilers that run for others at once; 0 if it is closed.
    pub slots: u32,
    /// Why nothing is lent, if `slots` is 0.
    pub closed: Option<Closed>,
    /// Memory that further jobs may take, beyond what those that run have already, KiB; what is kept free for the owner is
    /// not in it. `None` if the system does not tell.
    pub memory_free_kib: Option<u64>,
    /// So short of memory that the youngest job is to be given up.
    pub gives_up_one: bool,
}
