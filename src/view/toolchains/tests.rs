//! Words of the lists of compilers (DECIDE).

use super::*;
