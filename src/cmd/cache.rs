//! `mesh cache`: the results that are kept on this machine (DO).
//!
//! They are plain files that any number of programs may use at once: no agent has to run for this.

use super::{
    client::{places, snapshot},
    failure::{Failure, out},
};
use crate::{
    cli::{Cache, CacheDo},
    config::{CacheUse, Config, Flags},
    store::{
        checkouts::Checkouts,
        results::{Found, Results},
    },
    view::{rows, time},
};
use serde_json::json;

pub(super) fn run(args: &Cache) -> Result<u8, Failure> {
    let places = places()?;
    let config = super::agent::config(&places, Flags::default())?;
    let results = Results::open(&places.cache, config.cache_bytes_max);
    let found = match args.what {
        CacheDo::Stats => results.survey(),
        CacheDo::Clear => {
            Checkouts::open(&places.cache, config.cache_bytes_max).clear();
            results.clear()
        }
        CacheDo::Verify => results.verify(),
    };
    // What they were good for is known to an agent alone.
    let used = snapshot(&places).ok().map(|now| now.counters).filter(|_| args.what == CacheDo::Stats);
    if args.json {
        let mut json = json!({
            "schema": rows::SCHEMA,
            "entries": found.entries,
            "bytes": found.bytes,
            "bytes_max": config.cache_bytes_max,
            "damaged": found.damaged,
            "hits": null,
            "misses": null,
            "saved_ms": null,
        });
        if let Some(used) = used {
            json["hits"] = used.cache_hits.into();
            json["misses"] = used.cache_misses.into();
            json["saved_ms"] = used.cache_saved_ms.into();
        }
        out(&json.to_string());
        return Ok(0);
    }
    let all = format!("{}, {}", rows::count(found.entries, "result"), time::size(found.bytes));
    match args.what {
        CacheDo::Stats => out(&format!("{all}; {}", room(&config, &found))),
        CacheDo::Clear => out(&format!("{all}: removed")),
        CacheDo::Verify => out(&format!("{all}: {} damaged and removed", found.damaged)),
    }
    if let Some(used) = used.filter(|used| used.cache_hits + used.cache_misses > 0) {
        out(rows::cached(&used).trim_end());
    }
    Ok(0)
}

/// How much room they may take.
fn room(config: &Config, found: &Found) -> String {
    if config.cache == CacheUse::Off || config.cache_bytes_max == 0 {
        return "none are looked for, because the settings say so".to_owned();
    }
    let percent = found.bytes.saturating_mul(100) / config.cache_bytes_max;
    format!("{percent} % of the {} that they may take", time::size(config.cache_bytes_max))
}
