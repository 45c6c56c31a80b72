//! The only code that sees quinn, rustls, rcgen and mdns-sd (DO).
//!
//! [`identity`] is who this machine is, [`tls`] who may talk to it, [`endpoint`] the one socket for both directions,
//! [`stream`] how messages and blobs lie on a stream. [`pair`] and [`sync`] drive the exchanges that `mesh-proto`
//! describes; [`discovery`] tells of machines nearby. What any of it hears is a hint until a key has been checked.

pub mod channel;
pub mod discovery;
pub mod endpoint;
pub mod identity;
pub mod intro;
pub mod pair;
pub mod stream;
pub mod sync;
pub mod tls;

mod announce;
