//! The interface's module: what JavaScript calls in it is in the library.
#![no_main]

use kosmosg_web as _;
