//! Traffic routers, one file each. Pure.
