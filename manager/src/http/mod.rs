//! `/metrics` and `/healthz`: counters in, text out.
//!
//! Knows no instances.
