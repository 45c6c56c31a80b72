//! `mesh completions` and `mesh man`: for whoever packs mesh (DO).

use super::{
    failure::{Failure, out},
    install::pages,
};
use crate::{
    cli::{Completions, Man},
    view::rows::count,
};
use std::io::Write;

pub(super) fn completions(args: &Completions) -> Result<u8, Failure> {
    let _ = std::io::stdout().write_all(&pages::completions(args.shell));
    Ok(0)
}

pub(super) fn man(args: &Man) -> Result<u8, Failure> {
    let failed = |e: std::io::Error| Failure::new(format!("{} cannot be written to: {e}", args.dir.display()));
    let pages = pages::manual().map_err(failed)?;
    std::fs::create_dir_all(&args.dir).map_err(failed)?;
    for (name, text) in &pages {
        std::fs::write(args.dir.join(name), text).map_err(failed)?;
    }
    out(&format!("mesh: wrote {} to {}", count(pages.len() as u64, "page"), args.dir.display()));
    Ok(0)
}
