//! Who runs a job (DECIDE).
//!
//! | file | what |
//! | --- | --- |
//! | [`dispatch`] | the client: every unit of this machine's user, from its closure to its end |
//! | [`choose`] | the machine with the lowest expected finish |
//! | [`hedge`] | which unit is started a second time, and where |
//! | [`history`], [`speed`] | what a unit will cost, and how fast a machine is |
//! | [`retry`], [`breaker`] | what follows a refusal or a loss; when a machine that failed is asked again |
//! | [`intake`] | the provider: who is let in, and who is next |
//! | [`guest`] | on what terms the owner lends the machine now |
//! | [`ledger`], [`share`] | cores and memory, and who gets how much of them |
//! | [`tokens`] | how many compilers a build may start at once, and how its tool is told |
//! | [`whereabouts`] | which member knows who has a result |
//! | [`lend`] | which compilers of others are kept here |

pub mod breaker;
pub mod choose;
pub mod dispatch;
pub mod guest;
pub mod hedge;
pub mod history;
pub mod intake;
pub mod ledger;
pub mod lend;
pub mod retry;
pub mod share;
pub mod speed;
pub mod tokens;
pub mod whereabouts;
