//! The sign of life of an agent, for launchers that wait (AGREE, on one machine).
//!
//! While a launcher waits, the agent writes the time into a file beside its socket, once a second. A launcher looks at it
//! only when nothing has come for [`SILENCE_MS_MAX`]. Rejected: a beat on each launcher's connection, which wakes both ends
//! once a second for each unit that waits: with forty units a build spent a twentieth of the client's time on that.

/// The extension of the file, beside the socket.
pub const BEAT: &str = "beat";
/// A launcher that has seen no sign of life for this long gives the agent up, milliseconds.
pub const SILENCE_MS_MAX: u64 = 2000;
/// The file's content, bytes: the time of the last beat by the machine's monotonic clock, milliseconds, little-endian.
pub const BYTES: usize = 8;

/// How much longer the agent may be silent, milliseconds; `None` if it has been silent for too long, or has never beaten by
/// this clock.
#[must_use]
pub fn patience_ms(beat: [u8; BYTES], now_ms: u64) -> Option<u64> {
    let silent = now_ms.checked_sub(u64::from_le_bytes(beat))?;
    SILENCE_MS_MAX.checked_sub(silent).filter(|rest| *rest > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_waited_for_until_two_seconds_after_its_last_beat() {
        let patience = |beat: u64, now| patience_ms(beat.to_le_bytes(), now);
        assert_eq!(patience(5000, 5000), Some(2000));
        assert_eq!(patience(5000, 6999), Some(1));
        for silent in [7000, 7001, u64::MAX] {
            assert_eq!(patience(5000, silent), None);
        }
        // Another clock's time.
        assert_eq!(patience(5001, 5000), None);
    }
}
