//! File and environment to a typed configuration; every mistake reported at once.
