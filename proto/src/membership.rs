//! Who belongs to a mesh: a set of signed records that means the same in whatever order it was gathered (AGREE).
//!
//! There is no authority to ask and no list to keep equal by hand. A founder signs a [`Genesis`], owners sign an
//! [`Admit`] for each machine that they let in, and every machine concludes who is a member from the records alone
//! ([`RecordSet::evaluate`]). Rejected: a certificate authority (its key mints identities for ever once it leaks) and
//! mutual pins (lists that drift). Times decide nothing but expiry, so a wrong clock cannot lock anybody out.

mod record;
mod set;

pub use record::{
    Admit, Body, Cause, Delegate, Genesis, MeshId, PublicKey, Record, RecordError, Revoke, Role, Sign, Signature,
    Verify, is_name,
};
pub use set::{Member, Members, Merged, RecordSet, SetError};
