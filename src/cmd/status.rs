//! `mesh status`: what this machine lends, borrows and compiles itself (DO).

use super::{
    client::{places, snapshot},
    failure::{Failure, out, out_raw},
};
use crate::{cli::Json, view::rows};

pub(super) fn run(args: &Json) -> Result<u8, Failure> {
    let now = snapshot(&places()?)?;
    if args.json {
        out(&rows::status_json(&now).to_string());
    } else {
        out_raw(&rows::status(&now));
    }
    Ok(0)
}
