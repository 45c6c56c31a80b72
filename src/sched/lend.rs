//! Which compilers of others this machine takes in, and which it gives up for them (DECIDE).

use mesh_proto::{
    exchange::toolchain::{NotTaken, Wanted},
    limits,
    membership::Role,
    toolchain::{Fingerprint, Needs},
};

/// All compilers that were sent here, bytes of their files together: some ten of the largest known.
pub const SENT_BYTES_MAX: u64 = 8 << 30;
/// Compilers that wait to come, number.
pub const WAITING_MAX: usize = 32;
/// Room that stays free on the disk of the cache, bytes: outputs of jobs and the owner's own files need it.
pub const DISK_FREE_MIN: u64 = 2 << 30;
/// A compiler that was used this lately is not given up, milliseconds: a tree that is kept for a client may stand on it.
pub const USED_LATELY_MS: u64 = 15 * 60 * 1000;

/// This machine, as far as taking a compiler in looks at it, and who wants it to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shelf {
    /// It compiles for others.
    pub serves: bool,
    /// What its processor runs.
    pub processor: Needs,
    /// What the machine that asks may do in the mesh, by the records as they are now; `None`: it is no member.
    pub client: Option<Role>,
    /// Compilers that wait to come.
    pub waiting: usize,
    /// Free bytes on the disk of the cache; `None` if that is not known.
    pub disk_free: Option<u64>,
}

/// Takes a compiler in, or says why not.
///
/// # Errors
/// What the machine that asks is told.
pub fn take(shelf: &Shelf, wanted: &Wanted) -> Result<(), NotTaken> {
    let room = shelf.disk_free.is_none_or(|free| free.saturating_sub(wanted.bytes) >= DISK_FREE_MIN);
    match () {
        () if !shelf.serves || !shelf.client.is_some_and(Role::submits) => Err(NotTaken::Serve),
        () if shelf.processor.machine != wanted.needs.machine => Err(NotTaken::Machine),
        () if shelf.processor.level < wanted.needs.level => Err(NotTaken::Processor),
        () if wanted.bytes > limits::TOOLCHAIN_BYTES_MAX || !room => Err(NotTaken::Room),
        () if shelf.waiting >= WAITING_MAX => Err(NotTaken::Busy),
        () => Ok(()),
    }
}

/// A compiler that was sent here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Which.
    pub fingerprint: Fingerprint,
    /// Its files, bytes; what it has in common with others is counted in each.
    pub bytes: u64,
    /// When it was used last, milliseconds since 1970.
    pub used_ms: u64,
}

/// Which of these to give up so that `bytes` more find room within `bytes_max`, those first that nobody has used for longest;
/// fewer than would be needed where the rest was used lately.
#[must_use]
pub fn victims(sent: &[Sent], bytes: u64, bytes_max: u64, now_ms: u64) -> Vec<Fingerprint> {
    let mut held = sent.iter().fold(bytes, |sum, one| sum.saturating_add(one.bytes));
    let mut idle: Vec<&Sent> = sent.iter().filter(|one| now_ms.saturating_sub(one.used_ms) >= USED_LATELY_MS).collect();
    idle.sort_by_key(|one| (one.used_ms, one.fingerprint));
    let mut gone = Vec::new();
    for one in idle {
        if held <= bytes_max {
            break;
        }
        held = held.saturating_sub(one.bytes);
        gone.push(one.fingerprint);
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_proto::digest::Digest;

    const SHELF: Shelf = Shelf {
        serves: true,
        processor: Needs { machine: 62, level: 3 },
        client: Some(Role::Client),
        waiting: 0,
        disk_free: Some(100 << 30),
    };

    fn wanted() -> Wanted {
        let fingerprint = Fingerprint(Digest::of(b"gcc"));
        Wanted { fingerprint, needs: Needs { machine: 62, level: 1 }, bytes: 1 << 30 }
    }

    #[test]
    fn what_cannot_run_here_or_has_no_room_is_not_taken() {
        let take = |shelf: Shelf| super::take(&shelf, &wanted());
        assert_eq!(take(SHELF), Ok(()));
        assert_eq!(take(Shelf { disk_free: None, ..SHELF }), Ok(()));
        assert_eq!(take(Shelf { serves: false, ..SHELF }), Err(NotTaken::Serve));
        for client in [None, Some(Role::Worker)] {
            assert_eq!(take(Shelf { client, ..SHELF }), Err(NotTaken::Serve));
        }
        let processor = |machine, level| Shelf { processor: Needs { machine, level }, ..SHELF };
        assert_eq!(take(processor(183, 0)), Err(NotTaken::Machine));
        assert_eq!(take(processor(62, 0)), Err(NotTaken::Processor));
        assert_eq!(take(processor(62, 1)), Ok(()));
        assert_eq!(take(Shelf { disk_free: Some(3 << 30), ..SHELF }), Ok(()));
        assert_eq!(take(Shelf { disk_free: Some((3 << 30) - 1), ..SHELF }), Err(NotTaken::Room));
        assert_eq!(take(Shelf { waiting: WAITING_MAX, ..SHELF }), Err(NotTaken::Busy));
        let huge = Wanted { bytes: u64::MAX, ..wanted() };
        assert_eq!(super::take(&Shelf { disk_free: None, ..SHELF }, &huge), Err(NotTaken::Room));
    }

    #[test]
    fn the_longest_unused_go_first_and_none_that_was_used_lately() {
        let now_ms = 10 * USED_LATELY_MS;
        let sent = |name: &[u8], ago_ms| {
            let fingerprint = Fingerprint(Digest::of(name));
            Sent { fingerprint, bytes: 3, used_ms: now_ms - ago_ms }
        };
        let all = [sent(b"old", 9 * USED_LATELY_MS), sent(b"new", USED_LATELY_MS - 1), sent(b"mid", USED_LATELY_MS)];
        let go = |bytes, bytes_max| victims(&all, bytes, bytes_max, now_ms);
        assert_eq!(go(1, 10), []);
        assert_eq!(go(2, 10), [all[0].fingerprint]);
        assert_eq!(go(5, 10), [all[0].fingerprint, all[2].fingerprint]);
        assert_eq!(go(u64::MAX, 10), [all[0].fingerprint, all[2].fingerprint]);
    }
}
