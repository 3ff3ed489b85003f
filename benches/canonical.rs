//! From body to canonical bytes, on bills of material of 2 KB, 64 KB and 1 MB as producers send them: compact, and
//! indented. The crate that serves as oracle in the tests runs beside it for comparison.

use std::fmt::Write as _;
use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use stellaops_signer::statement::canonical;
use stellaops_signer::statement::json::{Document, JsonLimits};

fn benches(criterion: &mut Criterion) {
    let limits = JsonLimits::default();
    for (name, bytes) in [("2 KB", 2_000), ("64 KB", 64_000), ("1 MB", 1_000_000)] {
        let compact = bill_of_material(bytes);
        let value: serde_json::Value = serde_json::from_str(&compact).expect("it is JSON");
        let indented = serde_json::to_string_pretty(&value).expect("it is JSON");
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(compact.len() as u64));

        let body = Bytes::from(compact.clone());
        let document = Document::parse(body.clone(), &limits).expect("it is strict");
        group.bench_function("parse", |bencher| bencher.iter(|| Document::parse(black_box(body.clone()), &limits)));
        group.bench_function("write", |bencher| {
            bencher.iter_batched_ref(
                || Vec::with_capacity(compact.len() + 64),
                |out| canonical::write(black_box(document.root()), out),
                BatchSize::SmallInput,
            );
        });
        for (form, body) in [("compact", body), ("indented", Bytes::from(indented))] {
            group.throughput(Throughput::Bytes(body.len() as u64));
            group.bench_function(format!("parse and write, {form}"), |bencher| {
                bencher.iter(|| {
                    let document = Document::parse(black_box(body.clone()), &limits).expect("it is strict");
                    let mut out = Vec::new();
                    canonical::write(document.root(), &mut out);
                    out
                });
            });
        }
        group.bench_function("serde_json and serde_json_canonicalizer", |bencher| {
            bencher.iter(|| {
                let value: serde_json::Value = serde_json::from_str(black_box(&compact)).expect("it is JSON");
                serde_json_canonicalizer::to_vec(&value).expect("it is plain JSON")
            });
        });
        group.finish();
    }
}

/// A CycloneDX-like document whose members are not in canonical order.
fn bill_of_material(bytes: usize) -> String {
    let names =
        ["serde", "tokio", "openssl", "left-pad", "spring-core", "log4j-core", "zlib", "glibc", "libxml2", "react-dom"];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut text = r#"{"bomFormat":"CycloneDX","specVersion":"1.6","version":1,"components":["#.to_owned();
    while text.len() < bytes.saturating_sub(500) || text.ends_with('[') {
        if !text.ends_with('[') {
            text.push(',');
        }
        let name = names[usize::try_from(next(10)).unwrap_or(0)];
        let version = format!("{}.{}.{}", next(9), next(30), next(100));
        let (one, two, score, line) = (next(u64::MAX), next(u64::MAX), next(1000), next(500));
        write!(
            text,
            r#"{{"type":"library","bom-ref":"pkg:cargo/{name}@{version}?id={one:016x}","name":"{name}","version":"{version}","description":"The \"{name}\" library.\nIt has a second line.","licenses":[{{"license":{{"id":"MIT"}}}},{{"license":{{"id":"Apache-2.0"}}}}],"purl":"pkg:cargo/{name}@{version}","hashes":[{{"alg":"SHA-256","content":"{one:016x}{two:016x}{one:016x}{two:016x}"}}],"externalReferences":[{{"type":"vcs","url":"https://example.org/{name}"}}],"properties":[{{"name":"path","value":"/usr/lib/{name}"}}],"evidence":{{"identity":{{"field":"purl","confidence":0.{score}1}},"line":{line}}}}}"#
        )
        .expect("a String takes every write");
    }
    text.push_str("]}");
    text
}

criterion_group!(canonicalization, benches);
criterion_main!(canonicalization);
