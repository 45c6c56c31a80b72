//! The settings of an agent: command line over environment over file over default (DECIDE).
//!
//! No file is needed. The file is TOML, `config.toml` in the configuration directory:
//!
//! ```toml
//! name = "tower"                      # this machine's name in a mesh; default: the host's name
//! slots = "auto"                      # or 6: compilers run for others at once
//! port = 6374                         # UDP; default: 6374 if it is free
//! peers = ["tower.lan", "10.0.0.7:6374"]
//! compilers = "all"                   # or "none": lend no compiler of its own, only those that other machines send
//! toolchain_rate = 32                 # MB/s at which compilers are sent to other machines; 0: they are not
//! mode = "share"                      # off, idle, share or full; default: idle with a battery, else share
//! [cache]
//! use = "on"                          # or "read": keep nothing new; or "off"
//! max_size = "10G"                    # or "500M"; "0" or "off": no cache
//! [discovery]
//! announce = "tagged"                 # or "off"
//! [policy]
//! keep_free_memory = "15%"            # or "4G"; default: the mode's
//! on_battery = "off"                  # or "share": a quarter of the cores while it is half full
//! ```

use crate::{
    env,
    nearest::nearest,
    sched::guest::{Kept, Mode},
};
use std::{ffi::OsString, net::SocketAddr};
use toml::Value;

/// The UDP port of an agent that was told none, if it is free.
pub const PORT_DEFAULT: u16 = 6374;
/// Static addresses, items.
const PEERS_MAX: usize = 256;
/// Advertised addresses, items.
const ADVERTISE_MAX: usize = 8;
/// One address or name, bytes.
const WORD_BYTES_MAX: usize = 255;
/// Compilers at once.
const SLOTS_MAX: u16 = 4096;
/// Every key of the file.
const KEYS: &[&str] =
    &["name", "slots", "port", "peers", "compilers", "toolchain_rate", "mode", "cache", "discovery", "policy"];
/// Every key of `[policy]`.
const POLICY_KEYS: &[&str] = &["keep_free_memory", "on_battery"];
/// Every key of `[cache]`.
const CACHE_KEYS: &[&str] = &["use", "max_size"];
/// Every key of `[discovery]`.
const DISCOVERY_KEYS: &[&str] = &["announce"];

/// How much room kept results take, where nothing else is said, bytes.
const CACHE_BYTES_DEFAULT: u64 = 10 << 30;
/// MB/s at which compilers are sent, where nothing else is said: a compiler in a few seconds, and a third of a gigabit link.
const TOOLCHAIN_RATE_DEFAULT: u16 = 32;
/// The highest such rate.
const TOOLCHAIN_RATE_MAX: u16 = 10_000;

/// The settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This machine's name in a mesh; the host's name if `None`.
    pub name: Option<String>,
    /// Compilers that it runs for others at once; by its cores if `None`.
    pub slots: Option<u16>,
    /// The UDP port, 0 for any; [`PORT_DEFAULT`] if it is free, if `None`.
    pub port: Option<u16>,
    /// Addresses where machines of the mesh may be, with or without a port.
    pub peers: Vec<String>,
    /// Addresses at which others reach this machine, besides those that they see.
    pub advertise: Vec<SocketAddr>,
    /// Which compilers it lends.
    pub compilers: Compilers,
    /// How fast compilers are sent to other machines, MB (10^6 bytes) a second; 0: they are not.
    pub toolchain_rate: u16,
    /// What mDNS carries.
    pub announce: Announce,
    /// What is lent in general; by whether there is a battery if `None`.
    pub mode: Option<Mode>,
    /// The mode is the environment's, not the file's.
    pub mode_from_env: bool,
    /// Memory that stays the owner's; the mode's if `None`.
    pub keep_free: Option<Kept>,
    /// Whether a little is lent on a battery.
    pub on_battery: bool,
    /// How kept results are used.
    pub cache: CacheUse,
    /// How much room they may take, bytes; 0: there are none.
    pub cache_bytes_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: None,
            slots: None,
            port: None,
            peers: Vec::new(),
            advertise: Vec::new(),
            compilers: Compilers::default(),
            toolchain_rate: TOOLCHAIN_RATE_DEFAULT,
            announce: Announce::default(),
            mode: None,
            mode_from_env: false,
            keep_free: None,
            on_battery: false,
            cache: CacheUse::default(),
            cache_bytes_max: CACHE_BYTES_DEFAULT,
        }
    }
}

/// Which compilers a machine lends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compilers {
    /// Its own, and those that other machines sent.
    #[default]
    All,
    /// Only those that other machines sent.
    None,
}

/// How kept results are used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CacheUse {
    /// Looked for, and what is new is kept.
    #[default]
    On,
    /// Only looked for.
    Read,
    /// Not at all.
    Off,
}

/// What is announced by mDNS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Announce {
    /// Keyed tags that only members can read.
    #[default]
    Tagged,
    /// Nothing.
    Off,
}

/// What the command line says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--slots`.
    pub slots: Option<u16>,
    /// `--port`.
    pub port: Option<u16>,
}

/// Why there are no settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file is not TOML.
    #[error("line {line} of the file is not TOML: {why}")]
    Syntax {
        /// Where, counted from one.
        line: usize,
        /// The parser's words.
        why: String,
    },
    /// A value that its key cannot have.
    #[error("{key} must be {want}")]
    Value {
        /// The key or variable.
        key: String,
        /// What it can be.
        want: &'static str,
    },
}

const WANT_SLOTS: &str = "\"auto\" or a number from 0 to 4096";
const WANT_PORT: &str = "a number from 0 to 65535";
const WANT_NAME: &str = "a name of 1 to 64 bytes without control characters";
const WANT_PEERS: &str = "a list of at most 256 addresses such as \"tower.lan\" or \"10.0.0.7:6374\"";
const WANT_ADVERTISE: &str = "at most 8 addresses with ports such as 192.168.1.30:6374";
const WANT_COMPILERS: &str = "\"all\" or \"none\"";
const WANT_RATE: &str = "a number of MB a second from 0 to 10000";
const WANT_MODE: &str = "\"off\", \"idle\", \"share\" or \"full\"";
const WANT_KEPT: &str = "a share of the memory such as \"15%\", or an amount such as \"4G\" or \"512M\"";
const WANT_BATTERY: &str = "\"off\" or \"share\"";
const WANT_CACHE: &str = "\"on\", \"read\" or \"off\"";
const WANT_CACHE_SIZE: &str = "an amount such as \"10G\" or \"500M\", or \"off\"";
const WANT_ANNOUNCE: &str = "\"tagged\" or \"off\"";

/// Settles the settings. `file` is the configuration file's text, if there is one; with them come warnings, each a
/// sentence: keys that are not known do not keep an agent from starting.
///
/// # Errors
/// If the file is not TOML, or a value is not one that its key can have.
pub fn resolve(
    flags: Flags,
    var: impl Fn(&str) -> Option<OsString>,
    file: Option<&str>,
) -> Result<(Config, Vec<String>), ConfigError> {
    let (mut config, warnings) = file.map_or_else(|| Ok(Default::default()), from_file)?;
    let var = |name: &str| var(name).filter(|v| !v.is_empty()).map(|v| v.to_string_lossy().into_owned());
    if let Some(name) = var(env::NAME) {
        config.name = Some(checked_name(env::NAME, &name)?);
    }
    if let Some(text) = var(env::SLOTS) {
        config.slots = match text.as_str() {
            "auto" => None,
            number => Some(number.parse().ok().filter(|n| *n <= SLOTS_MAX).ok_or(wrong(env::SLOTS, WANT_SLOTS))?),
        };
    }
    if let Some(text) = var(env::PORT) {
        config.port = Some(text.parse().map_err(|_| wrong(env::PORT, WANT_PORT))?);
    }
    if let Some(text) = var(env::PEERS) {
        let words = text.split(',').map(str::trim).filter(|w| !w.is_empty());
        config.peers = checked_peers(env::PEERS, words.map(str::to_owned).collect())?;
    }
    if let Some(text) = var(env::ADVERTISE) {
        let words = text.split(',').map(str::trim).filter(|w| !w.is_empty());
        let addrs: Option<Vec<SocketAddr>> = words.map(|w| w.parse().ok()).collect();
        let usable = |a: &SocketAddr| a.port() != 0 && !a.ip().is_unspecified() && !a.ip().is_multicast();
        let fit = addrs.filter(|addrs| addrs.len() <= ADVERTISE_MAX && addrs.iter().all(usable));
        config.advertise = fit.ok_or(wrong(env::ADVERTISE, WANT_ADVERTISE))?;
    }
    if let Some(text) = var(env::COMPILERS) {
        config.compilers = compilers(env::COMPILERS, Some(&text))?;
    }
    if let Some(text) = var(env::TOOLCHAIN_RATE) {
        let rate = text.parse().ok().filter(|rate| *rate <= TOOLCHAIN_RATE_MAX);
        config.toolchain_rate = rate.ok_or(wrong(env::TOOLCHAIN_RATE, WANT_RATE))?;
    }
    if let Some(text) = var(env::MODE) {
        config.mode = Some(mode(env::MODE, Some(&text))?);
        config.mode_from_env = true;
    }
    if let Some(text) = var(env::CACHE) {
        config.cache = cache_use(&text).ok_or(wrong(env::CACHE, WANT_CACHE))?;
    }
    if let Some(text) = var(env::CACHE_SIZE) {
        config.cache_bytes_max = cache_size(&text).ok_or(wrong(env::CACHE_SIZE, WANT_CACHE_SIZE))?;
    }
    config.slots = flags.slots.or(config.slots);
    config.port = flags.port.or(config.port);
    Ok((config, warnings))
}

fn wrong(key: &str, want: &'static str) -> ConfigError {
    ConfigError::Value { key: key.to_owned(), want }
}

fn from_file(text: &str) -> Result<(Config, Vec<String>), ConfigError> {
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| ConfigError::Syntax {
        line: e.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count()),
        why: e.message().to_owned(),
    })?;
    let mut config = Config::default();
    let mut warnings = Vec::new();
    for (key, value) in &table {
        match (key.as_str(), value) {
            ("name", Value::String(name)) => config.name = Some(checked_name(key, name)?),
            ("name", _) => return Err(wrong(key, WANT_NAME)),
            ("slots", Value::String(auto)) if auto == "auto" => config.slots = None,
            ("slots", value) => config.slots = Some(number(key, value, SLOTS_MAX, WANT_SLOTS)?),
            ("port", value) => config.port = Some(number(key, value, u16::MAX, WANT_PORT)?),
            ("peers", Value::Array(items)) => {
                let words = items.iter().map(|i| i.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
                config.peers = checked_peers(key, words.ok_or(wrong(key, WANT_PEERS))?)?;
            }
            ("peers", _) => return Err(wrong(key, WANT_PEERS)),
            ("compilers", value) => config.compilers = compilers(key, value.as_str())?,
            ("toolchain_rate", value) => config.toolchain_rate = number(key, value, TOOLCHAIN_RATE_MAX, WANT_RATE)?,
            ("cache", Value::Table(cache)) => read_cache(cache, &mut config, &mut warnings)?,
            ("cache", _) => return Err(wrong(key, "a table with the keys use and max_size")),
            ("discovery", Value::Table(discovery)) => read_discovery(discovery, &mut config, &mut warnings)?,
            ("discovery", _) => return Err(wrong(key, "a table with the key announce")),
            ("mode", value) => config.mode = Some(mode(key, value.as_str())?),
            ("policy", Value::Table(policy)) => read_policy(policy, &mut config, &mut warnings)?,
            ("policy", _) => return Err(wrong(key, "a table with the keys keep_free_memory and on_battery")),
            (unknown, _) => warnings.push(not_known(unknown, "", KEYS)),
        }
    }
    Ok((config, warnings))
}

fn read_cache(table: &toml::Table, config: &mut Config, warnings: &mut Vec<String>) -> Result<(), ConfigError> {
    for (key, value) in table {
        match (key.as_str(), value.as_str()) {
            ("use", text) => config.cache = text.and_then(cache_use).ok_or(wrong("cache.use", WANT_CACHE))?,
            ("max_size", text) => {
                let zero = (value.as_integer() == Some(0)).then_some(0);
                let bytes = text.and_then(cache_size).or(zero);
                config.cache_bytes_max = bytes.ok_or(wrong("cache.max_size", WANT_CACHE_SIZE))?;
            }
            (unknown, _) => warnings.push(not_known(unknown, "cache.", CACHE_KEYS)),
        }
    }
    Ok(())
}

fn cache_use(word: &str) -> Option<CacheUse> {
    match word {
        "on" => Some(CacheUse::On),
        "read" => Some(CacheUse::Read),
        "off" => Some(CacheUse::Off),
        _ => None,
    }
}

/// `10G`, `500M`, `off`; bytes.
fn cache_size(text: &str) -> Option<u64> {
    if matches!(text, "0" | "off") {
        return Some(0);
    }
    let (digits, shift) = match text.strip_suffix('G') {
        Some(digits) => (digits, 30),
        None => (text.strip_suffix('M')?, 20),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn read_discovery(table: &toml::Table, config: &mut Config, warnings: &mut Vec<String>) -> Result<(), ConfigError> {
    for (key, value) in table {
        match (key.as_str(), value.as_str()) {
            ("announce", Some("tagged")) => config.announce = Announce::Tagged,
            ("announce", Some("off")) => config.announce = Announce::Off,
            ("announce", _) => return Err(wrong("discovery.announce", WANT_ANNOUNCE)),
            (unknown, _) => warnings.push(not_known(unknown, "discovery.", DISCOVERY_KEYS)),
        }
    }
    Ok(())
}

fn read_policy(table: &toml::Table, config: &mut Config, warnings: &mut Vec<String>) -> Result<(), ConfigError> {
    for (key, value) in table {
        match (key.as_str(), value.as_str()) {
            ("keep_free_memory", text) => {
                let kept = text.and_then(kept).ok_or(wrong("policy.keep_free_memory", WANT_KEPT))?;
                config.keep_free = Some(kept);
            }
            ("on_battery", Some("off")) => config.on_battery = false,
            ("on_battery", Some("share")) => config.on_battery = true,
            ("on_battery", _) => return Err(wrong("policy.on_battery", WANT_BATTERY)),
            (unknown, _) => warnings.push(not_known(unknown, "policy.", POLICY_KEYS)),
        }
    }
    Ok(())
}

fn mode(key: &str, word: Option<&str>) -> Result<Mode, ConfigError> {
    word.and_then(Mode::named).ok_or(wrong(key, WANT_MODE))
}

/// `15%`, `4G`, `512M`.
fn kept(text: &str) -> Option<Kept> {
    if let Some(percent) = text.strip_suffix('%') {
        return percent.parse().ok().filter(|percent| *percent <= 100).map(Kept::Percent);
    }
    let (digits, mib) = match text.strip_suffix('G') {
        Some(digits) => (digits, 1024),
        None => (text.strip_suffix('M')?, 1),
    };
    digits.parse::<u32>().ok()?.checked_mul(mib).map(Kept::Mib)
}

fn compilers(key: &str, word: Option<&str>) -> Result<Compilers, ConfigError> {
    match word {
        Some("all") => Ok(Compilers::All),
        Some("none") => Ok(Compilers::None),
        _ => Err(wrong(key, WANT_COMPILERS)),
    }
}

fn not_known(key: &str, prefix: &str, known: &[&str]) -> String {
    let meant = nearest(key, known.iter().copied());
    let hint = meant.map_or_else(String::new, |near| format!(" Did you mean {prefix}{near}?"));
    let key: String = key.chars().filter(|c| !c.is_control()).take(WORD_BYTES_MAX).collect();
    format!("the configuration has a key that is not known and has no effect: {prefix}{key}.{hint}")
}

fn number(key: &str, value: &Value, max: u16, want: &'static str) -> Result<u16, ConfigError> {
    let number = value.as_integer().and_then(|n| u16::try_from(n).ok());
    number.filter(|n| *n <= max).ok_or(wrong(key, want))
}

fn checked_name(key: &str, name: &str) -> Result<String, ConfigError> {
    let fits = !name.trim().is_empty() && name.len() <= mesh_proto::limits::NAME_BYTES_MAX;
    if fits && !name.chars().any(char::is_control) { Ok(name.to_owned()) } else { Err(wrong(key, WANT_NAME)) }
}

fn checked_peers(key: &str, words: Vec<String>) -> Result<Vec<String>, ConfigError> {
    let fits = |w: &String| is_address(w);
    if words.len() <= PEERS_MAX && words.iter().all(fits) { Ok(words) } else { Err(wrong(key, WANT_PEERS)) }
}

/// Whether this can be an address of a machine: `tower.lan`, `10.0.0.7:6374`, `[fe80::1%2]:6374`, `fe80::1`.
#[must_use]
pub fn is_address(text: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']' | '%');
    if text.is_empty() || text.len() > WORD_BYTES_MAX || !text.chars().all(plain) {
        return false;
    }
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|p| p > 0);
    match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, "")) => host.contains(':'),
            Some((host, port)) => host.contains(':') && port.strip_prefix(':').is_some_and(is_port),
            None => false,
        },
        None => match text.split_once(':') {
            Some((host, port)) if !port.contains(':') => !host.is_empty() && is_port(port),
            _ => !text.starts_with('-'),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(flags: Flags, vars: &[(&str, &str)], file: &str) -> Result<(Config, Vec<String>), ConfigError> {
        resolve(flags, |name| vars.iter().find(|(k, _)| *k == name).map(|(_, v)| OsString::from(v)), Some(file))
    }

    #[test]
    fn nothing_needs_to_be_configured() {
        assert_eq!(resolve(Flags::default(), |_| None, None), Ok((Config::default(), vec![])));
        assert_eq!(settle(Flags::default(), &[], ""), Ok((Config::default(), vec![])));
    }

    #[test]
    fn the_command_line_beats_the_environment_which_beats_the_file() {
        let file = "name = 'f'\nslots = 1\nport = 11\npeers = ['a']\n[discovery]\nannounce = 'off'\n";
        let env = [("MESH_SLOTS", "2"), ("MESH_PORT", "12"), ("MESH_NAME", "e"), ("MESH_PEERS", "b:1, c")];
        let flags = Flags { slots: Some(3), port: Some(13) };
        let got = |flags, env: &[_]| settle(flags, env, file).expect("good").0;
        let all = got(flags, &env);
        assert_eq!((all.slots, all.port, all.name.as_deref()), (Some(3), Some(13), Some("e")));
        assert_eq!((all.peers, all.announce), (vec!["b:1".to_owned(), "c".to_owned()], Announce::Off));
        let two = got(Flags::default(), &env);
        assert_eq!((two.slots, two.port), (Some(2), Some(12)));
        let one = got(Flags::default(), &[]);
        assert_eq!((one.slots, one.port, one.name.as_deref()), (Some(1), Some(11), Some("f")));
        let file = "compilers = 'none'\ntoolchain_rate = 5\n";
        let of = |env: &[_]| settle(Flags::default(), env, file).map(|(c, _)| (c.compilers, c.toolchain_rate));
        assert_eq!(of(&[]), Ok((Compilers::None, 5)));
        let env = [("MESH_COMPILERS", "all"), ("MESH_TOOLCHAIN_RATE", "0")];
        assert_eq!(of(&env), Ok((Compilers::All, 0)));
        assert!(of(&[("MESH_COMPILERS", "some")]).is_err() && of(&[("MESH_TOOLCHAIN_RATE", "10001")]).is_err());
        assert_eq!(got(Flags::default(), &[("MESH_SLOTS", "auto")]).slots, None);
        assert_eq!(got(Flags::default(), &[("MESH_SLOTS", "")]).slots, Some(1), "empty is as good as absent");
    }

    #[test]
    fn what_is_lent_can_be_settled_in_the_file_and_by_the_environment() {
        let file = "mode = 'idle'\n[policy]\nkeep_free_memory = '4G'\non_battery = 'share'\n";
        let of = |env: &[_]| settle(Flags::default(), env, file).expect("good").0;
        let config = of(&[]);
        assert_eq!((config.mode, config.mode_from_env), (Some(Mode::Idle), false));
        assert_eq!((config.keep_free, config.on_battery), (Some(Kept::Mib(4096)), true));
        let config = of(&[("MESH_MODE", "full")]);
        assert_eq!((config.mode, config.mode_from_env), (Some(Mode::Full), true));
        assert!(settle(Flags::default(), &[("MESH_MODE", "fast")], "").is_err());
        assert_eq!(
            [kept("15%"), kept("512M"), kept("G"), kept("9")],
            [Some(Kept::Percent(15)), Some(Kept::Mib(512)), None, None]
        );
    }

    #[test]
    fn how_much_is_kept_can_be_settled_in_the_file_and_by_the_environment() {
        let of = |env: &[_], file: &str| {
            settle(Flags::default(), env, file).map(|(config, _)| (config.cache, config.cache_bytes_max))
        };
        assert_eq!(of(&[], ""), Ok((CacheUse::On, 10 << 30)));
        let file = "[cache]\nuse = 'read'\nmax_size = '500M'\n";
        assert_eq!(of(&[], file), Ok((CacheUse::Read, 500 << 20)));
        assert_eq!(of(&[("MESH_CACHE", "off"), ("MESH_CACHE_SIZE", "2G")], file), Ok((CacheUse::Off, 2 << 30)));
        for none in ["[cache]\nmax_size = 0", "[cache]\nmax_size = '0'", "[cache]\nmax_size = 'off'"] {
            assert_eq!(of(&[], none), Ok((CacheUse::On, 0)), "{none}");
        }
        for bad in ["cache = 1", "[cache]\nuse = true", "[cache]\nmax_size = 5", "[cache]\nmax_size = '5T'"] {
            assert!(of(&[], bad).is_err(), "{bad}");
        }
        assert!(of(&[("MESH_CACHE", "yes")], "").is_err() && of(&[("MESH_CACHE_SIZE", "99999999999G")], "").is_err());
    }

    #[test]
    fn unknown_keys_are_named_with_what_was_meant_and_do_no_harm() {
        let (config, warnings) =
            settle(Flags::default(), &[], "slot = 3\nport = 7\nfrobnicate = true\n[discovery]\nanounce = 'off'\n")
                .expect("only warnings");
        assert_eq!((config.port, config.slots), (Some(7), None));
        insta::assert_snapshot!(warnings.join("\n"), @r"
        the configuration has a key that is not known and has no effect: discovery.anounce. Did you mean discovery.announce?
        the configuration has a key that is not known and has no effect: frobnicate.
        the configuration has a key that is not known and has no effect: slot. Did you mean slots?
        ");
    }

    #[test]
    fn wrong_values_are_refused_with_what_is_right() {
        let said = |file: &str| settle(Flags::default(), &[], file).expect_err(file).to_string();
        insta::assert_snapshot!(
            [
                "slots = 'many'",
                "slots = -1",
                "port = 70000",
                "name = ''",
                "peers = 'a'",
                "peers = ['a b']",
                "discovery = 1",
                "[discovery]\nannounce = 'open'",
                "mode = 'half'",
                "[policy]\nkeep_free_memory = '101%'",
                "[policy]\nkeep_free_memory = 4",
                "[policy]\non_battery = 'full'",
                "port = 1\nslots =",
            ]
            .map(said)
            .join("\n"),
            @r#"
            slots must be "auto" or a number from 0 to 4096
            slots must be "auto" or a number from 0 to 4096
            port must be a number from 0 to 65535
            name must be a name of 1 to 64 bytes without control characters
            peers must be a list of at most 256 addresses such as "tower.lan" or "10.0.0.7:6374"
            peers must be a list of at most 256 addresses such as "tower.lan" or "10.0.0.7:6374"
            discovery must be a table with the key announce
            discovery.announce must be "tagged" or "off"
            mode must be "off", "idle", "share" or "full"
            policy.keep_free_memory must be a share of the memory such as "15%", or an amount such as "4G" or "512M"
            policy.keep_free_memory must be a share of the memory such as "15%", or an amount such as "4G" or "512M"
            policy.on_battery must be "off" or "share"
            line 2 of the file is not TOML: string values must be quoted, expected literal string
            "#
        );
        let advertise = |text: &'static str| {
            resolve(Flags::default(), |n| (n == "MESH_ADVERTISE").then(|| text.into()), None).map(|(c, _)| c.advertise)
        };
        let both = ["192.168.1.30:6374", "[fd00::1]:7"].map(|a| a.parse().expect("an address"));
        assert_eq!(advertise("192.168.1.30:6374, [fd00::1]:7").expect("addresses"), both);
        for wrong in ["tower.lan", "10.0.0.1", "0.0.0.0:6374", "10.0.0.1:0"] {
            assert!(advertise(wrong).is_err(), "{wrong}");
        }
        assert!(resolve(Flags::default(), |n| (n == "MESH_PORT").then(|| "x".into()), None).is_err());
    }

    #[test]
    fn addresses_are_told_from_other_words() {
        for good in ["tower", "tower.lan:6374", "10.0.0.7", "[fe80::1%2]:6374", "[::1]", "::1", "bücher.example"] {
            assert!(is_address(good), "{good}");
        }
        for bad in ["", "a b", "a:", ":1", "a:0", "a:70000", "[::1", "[x]:1", "-x", "a/b", "a@b", "[::1]x"] {
            assert!(!is_address(bad), "{bad}");
        }
    }
}
