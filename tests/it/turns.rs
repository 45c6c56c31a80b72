//! Which tests run beside each other: nearly all of them. One that measures how fast something is runs alone.

use std::{
    cell::RefCell,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

/// Tests that have begun.
#[derive(Debug)]
struct Turns {
    running: usize,
    /// One runs alone, or waits until it does.
    alone: bool,
}

static TURNS: Mutex<Turns> = Mutex::new(Turns { running: 0, alone: false });
static CHANGED: Condvar = Condvar::new();

thread_local! {
    /// This thread's test, from when it began until the thread ends.
    static TURN: RefCell<Option<Turn>> = const { RefCell::new(None) };
}

/// A test that has begun.
#[derive(Debug)]
struct Turn;

impl Turn {
    /// One more has begun.
    fn taken(mut turns: MutexGuard<'_, Turns>) {
        turns.running += 1;
        TURN.set(Some(Self));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        turns().running -= 1;
        CHANGED.notify_all();
    }
}

fn turns() -> MutexGuard<'static, Turns> {
    TURNS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn once(is_so: impl Fn(&Turns) -> bool) -> MutexGuard<'static, Turns> {
    CHANGED.wait_while(turns(), |turns| !is_so(turns)).unwrap_or_else(PoisonError::into_inner)
}

/// The test of this thread begins, unless it has begun, when none runs alone.
pub(crate) fn begins() {
    if TURN.with_borrow(Option::is_none) {
        Turn::taken(once(|turns| !turns.alone));
    }
}

/// Until this goes, no other test begins.
#[derive(Debug)]
pub(crate) struct Alone;

/// Waits until no other test runs. This is what the test of this thread begins with.
pub(crate) fn alone() -> Alone {
    assert!(TURN.with_borrow(Option::is_none), "it has begun");
    once(|turns| !turns.alone).alone = true;
    Turn::taken(once(|turns| turns.running == 0));
    Alone
}

impl Drop for Alone {
    fn drop(&mut self) {
        turns().alone = false;
        CHANGED.notify_all();
    }
}
