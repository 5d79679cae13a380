//! Whatever bytes arrive: nothing panics, memory stays bounded, the books balance, what is accepted
//! is legal, and all three encodings of it decode to the same records.
#![no_main]

#[path = "../../rust/core/tests/common/counting.rs"]
mod counting;

use counting::{Counting, peak_of};
use libfuzzer_sys::fuzz_target;
use tamiyo_core::columns::Columns;
use tamiyo_core::decode::decode;
use tamiyo_core::encode::{Encoding, encode};
use tamiyo_core::envelope::{Header, open};
use tamiyo_core::filter::FilterConfig;
use tamiyo_core::ingest::{Ingest, IngestConfig};
use tamiyo_core::record::Record;
use tamiyo_core::topics::HEALTH_SIGNALS;

#[global_allocator]
static COUNTING: Counting = Counting;

/// Bytes that any message may cost, nearly all for the two plain tables of ids, and how many more for
/// each of its own.
const FIXED: usize = 1 << 20;
const PER_BYTE: usize = 64;

fuzz_target!(|message: &[u8]| {
    let peak = peak_of(|| ingest(message));
    assert!(peak <= FIXED + PER_BYTE * message.len(), "{peak} bytes for {}", message.len());
    let Ok(envelope) = open(message) else { return };
    let mut records = Vec::new();
    let Ok(()) = envelope.body.and_then(|body| decode(&envelope.header, body, &mut records)) else {
        return;
    };
    assert_eq!(records.len(), envelope.header.n);
    assert!(records.iter().all(Record::is_legal));
    agree(&envelope.header, &records);
});

fn ingest(message: &[u8]) {
    let filter = FilterConfig { max_keys: 64, keep_every: 2, ..FilterConfig::default() };
    let config = IngestConfig { capacity: 64, window: 16, filter, ..IngestConfig::default() };
    let ingest = Ingest::new(None, config).expect("valid settings");
    let accepted = ingest.ingest([message, message]);
    for (_, account) in ingest.accounts() {
        let refused: u64 = account.refused.iter().sum();
        let left = account.drained + account.thinned + account.overwritten + account.lost;
        assert_eq!(account.sent, account.held + refused + left);
    }
    let held = ingest.recent(usize::MAX >> 1).len();
    assert!(held <= accepted && held <= 64);
    assert!(ingest.layers().into_arrays()[0].len() <= 64);
}

fn agree(header: &Header<'_>, records: &[Record]) {
    let columns = Columns::from_iter(records);
    for encoding in Encoding::ALL {
        let header = Header { topic: HEALTH_SIGNALS, ..*header };
        let again = encode(&header, &columns, encoding);
        let envelope = open(&again).expect("what was encoded can be opened");
        let mut decoded = Vec::new();
        decode(&header, envelope.body.expect("with its body"), &mut decoded).expect("and decoded");
        assert_eq!(bytes(&decoded), bytes(records), "{encoding:?}");
    }
}

/// Packed, with one NaN for all: which of them says that nothing was measured means nothing.
fn bytes(records: &[Record]) -> Vec<u8> {
    let mut out = Vec::new();
    for record in records {
        let mut record = *record;
        let measured = record.measurements();
        record
            .set_measurements(measured.map(|value| if value.is_nan() { f32::NAN } else { value }));
        record.write_to(&mut out);
    }
    out
}
