//! Signal ingest for Tamiyo, read in the order in which data flows.
//!
//! A message is opened ([`envelope`]) and decoded ([`mod@decode`], with the tables in [`table`] and
//! [`topics`]) into records ([`record`]), which are judged ([`filter`], [`priority`]), added to their layer's
//! window ([`layers`], [`summary`]), and kept ([`lanes`]) or thinned. [`accounting`] knows where
//! every signal went. [`ingest`] composes all of it.
//!
//! Beside that flow stands [`sum_tree`], the priorities of the learner's replay memory.
#![forbid(unsafe_code)]
#![allow(clippy::needless_bitwise_bool, reason = "tests without branches, where data decides")]

pub mod accounting;
mod block;
pub mod columns;
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
mod moments;
pub mod msgpack;
pub mod priority;
pub mod record;
pub mod refusal;
pub mod scalar;
pub mod sequence;
mod sharded;
mod sliding;
pub mod sum_tree;
pub mod summary;
pub mod table;
mod template;
pub mod topics;

/// Version of the telemetry envelope that this build reads and writes.
pub const SCHEMA_VERSION: u64 = 1;
