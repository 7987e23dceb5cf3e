//! The worker's module for the GPU: what JavaScript calls in it is in the library.
#![no_main]

use kosmosg_web as _;
