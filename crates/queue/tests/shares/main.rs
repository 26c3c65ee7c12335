//! Rates, shares and judgements under random histories, each against a model that is told differently.

#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test that cannot go on fails the test"
)]

mod entitlement;
mod flood;
mod judge;
mod rate;
mod reclaim;
