//! Stub being written.
