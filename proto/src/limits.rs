//! Every bound on the wire, with its unit and its reason (AGREE).

/// One frame's payload, bytes. Large data is cut into pieces; an offer of the largest closure still fits.
pub const FRAME_BYTES_MAX: usize = 8 << 20;
/// A hello, bytes: sent before the other side is known to be a member, so kept small.
pub const HELLO_BYTES_MAX: usize = 16 << 10;
/// One pairing frame, bytes.
pub const PAIRING_BYTES_MAX: usize = 4 << 10;
/// The records, key and addresses that an inviter hands over, bytes.
pub const WELCOME_BYTES_MAX: usize = 2 << 20;
/// A path, bytes (Linux's PATH_MAX).
pub const PATH_BYTES_MAX: usize = 4096;
/// One component of a path, bytes (NAME_MAX of the usual file systems).
pub const COMPONENT_BYTES_MAX: usize = 255;
/// Components in a path.
pub const PATH_DEPTH_MAX: usize = 64;
/// Files, links and directories in one job's closure.
pub const CLOSURE_ENTRIES_MAX: usize = 20_000;
/// One blob, bytes.
pub const BLOB_BYTES_MAX: u64 = 512 << 20;
/// All inputs of one job, bytes.
pub const JOB_INPUT_BYTES_MAX: u64 = 2 << 30;
/// All outputs of one job, bytes.
pub const JOB_OUTPUT_BYTES_MAX: u64 = 2 << 30;
/// Files that one job may return.
pub const JOB_OUTPUTS_MAX: usize = 64;
/// What a job may print, both streams together, bytes.
pub const JOB_TEXT_BYTES_MAX: usize = 64 << 20;
/// Pieces of text that one job may print, a new one at each change between its two streams.
pub const JOB_TEXT_PIECES_MAX: usize = 1 << 16;
/// Arguments of one job, bytes together.
pub const ARGV_BYTES_MAX: usize = 1 << 20;
/// Arguments of one job, items.
pub const ARGV_ITEMS_MAX: usize = 32_768;
/// Environment of one job, bytes together.
pub const ENV_BYTES_MAX: usize = 64 << 10;
/// Environment of one job, items.
pub const ENV_ITEMS_MAX: usize = 512;
/// How many times its compressed size a blob may have.
pub const COMPRESSION_RATIO_MAX: u64 = 200;
/// Entries that one connection may name before it must be opened anew.
pub const NAMES_MAX: usize = 2_000_000;
/// Entries named in one frame.
pub const NAME_BATCH_MAX: usize = 4096;
/// Wall time of one job, milliseconds.
pub const JOB_WALL_MS_MAX: u64 = 10 * 60 * 1000;
/// Jobs at once on one connection.
pub const STREAMS_MAX: u32 = 256;
/// A name of a machine or a mesh, bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// A signed record, bytes.
pub const RECORD_BYTES_MAX: usize = 1024;
/// An introduction, bytes.
pub const INTRO_BYTES_MAX: usize = 16 << 10;
/// Records in an introduction: a line from the founder through owners, and a token.
pub const INTRO_RECORDS_MAX: usize = 10;
/// Addresses in a token.
pub const TOKEN_ADDRESSES_MAX: usize = 4;
/// Live records of a mesh.
pub const RECORDS_MAX: usize = 1024;
/// Revocations of one mesh, beside its other records: a set that is full of admissions has room for these.
pub const REVOCATIONS_MAX: usize = 1024;
/// All records of one mesh.
pub const SET_RECORDS_MAX: usize = RECORDS_MAX + REVOCATIONS_MAX;
/// Machines that one revocation keeps of those that the revoked one has admitted: what fits into a record.
pub const KEPT_MAX: usize = 24;
/// Links between a member and the founder.
pub const CHAIN_DEPTH_MAX: usize = 8;
/// Toolchains that one machine advertises.
pub const TOOLCHAINS_MAX: usize = 256;
/// Parts of one toolchain; the largest known have 200.
pub const TOOLCHAIN_PARTS_MAX: usize = 4096;
/// What a toolchain says of itself, items.
pub const TOOLCHAIN_FACTS_MAX: usize = 64;
/// The frame of a toolchain's manifest, bytes.
pub const TOOLCHAIN_MANIFEST_BYTES_MAX: usize = 2 << 20;
/// All files of one toolchain that is sent, bytes.
pub const TOOLCHAIN_BYTES_MAX: u64 = 4 << 30;
/// Files of a toolchain that are asked for at once, bytes, unless one alone is larger.
pub const TOOLCHAIN_TURN_BYTES: u64 = 16 << 20;
/// Addresses kept or told of one machine.
pub const ADDRESSES_MAX: usize = 32;
/// How often a provider may say what it lacks for one job: at once, and after what others did not give.
pub const MISSING_ROUNDS_MAX: usize = 2;
/// Other providers that one offer names.
pub const SOURCES_MAX: usize = 8;
/// Peers to which one client may grant what it named to one provider.
pub const GRANTS_MAX: usize = 256;
/// Machines that are said to have one result.
pub const HOLDERS_MAX: usize = 2;
/// Results that a machine says at once to have.
pub const HELD_BATCH_MAX: usize = 1024;
/// The outputs of one result that is given to others, bytes.
pub const RESULT_BYTES_MAX: u64 = 256 << 20;
/// Blobs that a provider announces at once to another.
pub const SHARE_BATCH_MAX: usize = 256;
