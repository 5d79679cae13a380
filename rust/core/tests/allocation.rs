//! A sender can make the decoder allocate a few times what it sends, never what it merely claims.
#![allow(missing_docs)]

#[path = "common/counting.rs"]
mod counting;

use counting::{Counting, peak_of};
use tamiyo_core::decode::decode;
use tamiyo_core::envelope::{Header, open};
use tamiyo_core::topics::HEALTH_SIGNALS;

#[global_allocator]
static COUNTING: Counting = Counting;

/// One test, because the counters are the process's.
#[test]
fn decoding_allocates_in_proportion_to_the_message() {
    let claim = [0xff; 4];
    let million = vec![0x80; 1_000_000];
    for body in [
        [&[0xdd][..], &claim].concat(),
        [&[0xdf][..], &claim].concat(),
        [&[0xc6][..], &claim].concat(),
        [&[0xdd, 0, 15, 66, 64][..], &million].concat(),
        [&[0xdf, 0, 7, 161, 32][..], &million].concat(),
        [&[0xdd, 0, 15, 66, 64][..], &vec![0x91; 1_000_000]].concat(),
    ] {
        for n in [1_000_000, u32::MAX as usize, usize::MAX] {
            let header = Header {
                run: "r",
                producer: "p",
                incarnation: 0,
                seq: 0,
                n,
                topic: HEALTH_SIGNALS,
            };
            let peak = peak_of(|| assert!(decode(&header, &body, &mut Vec::new()).is_err()));
            assert!(peak <= 4 * body.len() + 1024, "{peak} bytes for {}", body.len());
            let peak = peak_of(|| assert!(open(&body).is_err()));
            assert!(peak <= 1024, "{peak} bytes to open {}", body.len());
        }
    }
}
