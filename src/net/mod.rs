//! The only code that sees quinn, rustls and mdns-sd (DO).
