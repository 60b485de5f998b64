//! What sealing and opening cost with the key in memory, and a blob and a key on the disk.
//!
//! The rule of this file: it measures, it asserts nothing.

use std::{convert::Infallible, hint::black_box};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::{FutureExt, stream};
use uuid::Uuid;
use vault::{MasterKey, Place, Vault};

const EMAIL: &[u8] = b"ada.lovelace@example.org";
const MEBIBYTE: usize = 1024 * 1024;

fn benchmark(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a run time starts");
    let folder = tempfile::TempDir::new().expect("there is a folder for temporary files");
    let product = Uuid::now_v7();
    let product_key = format!("product-{product}");
    let vault = runtime.block_on(async {
        let master = MasterKey::generate().expect("there are random bytes");
        let vault = Vault::local(folder.path(), master).await.expect("the vault opens");
        vault.create_key(&product_key).await.expect("the key is made");
        vault
    });
    let place = Place {
        organization: Uuid::now_v7(),
        stream: "user-01930000-0000-7000-8000-000000000000",
        event_type: "user.created.v1",
        field: "email",
    };

    // With the key in memory the future is ready at its first poll: no run time is measured.
    let seal = |bytes: &[u8]| {
        let sealed = vault.seal(&product_key, &place, bytes).now_or_never();
        sealed.expect("the key is in memory").expect("it seals")
    };
    criterion.bench_function("seal 24 bytes", |b| b.iter(|| seal(black_box(EMAIL))));
    let sealed = seal(EMAIL);
    criterion.bench_function("open 24 bytes", |b| {
        b.iter(|| vault.open_cached(black_box(&sealed), &place));
    });
    let text = vec![7; 16 * 1024];
    criterion.bench_function("seal 16 KiB", |b| b.iter(|| seal(black_box(&text))));

    let mut number = 0_u64;
    criterion.bench_function("create a key", |b| {
        b.iter(|| {
            number += 1;
            runtime.block_on(vault.create_key(&format!("user-{number}"))).expect("it is made");
        });
    });

    let mut group = criterion.benchmark_group("blob of 64 MiB");
    group.throughput(Throughput::Bytes(64 * MEBIBYTE as u64)).sample_size(10);
    let chunk = Bytes::from(vec![7; 64 * 1024]);
    let put = || {
        let body = stream::iter((0..1024).map(|_| Ok::<_, Infallible>(chunk.clone())));
        runtime.block_on(vault.put_blob(product, body, u64::MAX)).expect("it is stored")
    };
    group.bench_function("put", |b| b.iter(put));
    let blob = put();
    group.bench_function("read and verify", |b| {
        b.iter(|| runtime.block_on(vault.blob_bytes(product, &blob, u64::MAX)).expect("it reads"));
    });
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
