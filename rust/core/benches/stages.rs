//! The stages of ingest under criterion, for comparing one change with another: `cargo bench
//! --bench stages -- --save-baseline NAME`, and later `--baseline NAME`.
#![allow(missing_docs)]

mod shared;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use shared::{BATCH, messages, records};
use tamiyo_core::decode::decode;
use tamiyo_core::encode::Encoding;
use tamiyo_core::envelope::open;
use tamiyo_core::features::window_features;
use tamiyo_core::filter::{Filter, FilterConfig};
use tamiyo_core::ingest::{Ingest, IngestConfig};
use tamiyo_core::layers::Layers;

const LAYERS: usize = 50;

fn stages(criterion: &mut Criterion) {
    let records = records(BATCH, LAYERS);
    let mut group = criterion.benchmark_group("stages");
    group.throughput(Throughput::Elements(BATCH as u64));
    for encoding in Encoding::ALL {
        let sent = messages("bench", &records, encoding);
        let envelope = open(&sent[0]).expect("well formed");
        let body = envelope.body.expect("well formed");
        let mut decoded = Vec::new();
        group.bench_function(format!("decode {encoding:?}"), |bencher| {
            bencher.iter(|| decode(&envelope.header, body, &mut decoded));
        });
        group.bench_function(format!("ingest {encoding:?}"), |bencher| {
            let fresh = || Ingest::new(None, IngestConfig::default()).expect("valid");
            bencher.iter_batched_ref(
                fresh,
                |ingest| ingest.ingest([&sent[0][..]]),
                BatchSize::LargeInput,
            );
        });
    }
    let filter = Filter::new(FilterConfig::default()).expect("valid");
    group.bench_function("filter", |bencher| bencher.iter(|| filter.judge(&records)));
    let layers = Layers::new(100, LAYERS);
    group.bench_function("streaming features", |bencher| bencher.iter(|| layers.push(&records)));
    group.bench_function("snapshot", |bencher| bencher.iter(|| layers.snapshot()));
    group.bench_function("features in one pass", |bencher| {
        bencher.iter(|| window_features(&records, 100));
    });
}

criterion_group!(all, stages);
criterion_main!(all);
