//! Signal ingest for Tamiyo, read in the order in which data flows.
//!
//! A message is opened ([`envelope`]) and decoded ([`mod@decode`], with the tables in [`record`] and
//! [`topics`]) into records, which are judged ([`filter`], [`priority`]), added to their layer's
//! window ([`layers`], [`features`]), and kept ([`lanes`]) or thinned. [`accounting`] knows where
//! every signal went. [`ingest`] composes all of it.
#![forbid(unsafe_code)]

pub mod accounting;
pub mod decode;
pub mod encode;
pub mod envelope;
pub mod features;
pub mod filter;
pub mod ingest;
pub mod keys;
pub mod lanes;
pub mod layers;
mod maps;
pub mod msgpack;
pub mod priority;
pub mod record;
pub mod refusal;
pub mod scalar;
pub mod sequence;
mod sharded;
pub mod topics;

/// Version of the telemetry envelope that this build reads and writes.
pub const SCHEMA_VERSION: u64 = 1;
