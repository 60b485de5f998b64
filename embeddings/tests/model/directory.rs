//! Where the tests and benchmarks find the real model.

use std::path::{Path, PathBuf};

/// The model's directory, or an end that says how to get it.
pub fn model_directory() -> PathBuf {
    let directory = std::env::var_os("PRODGY_MODEL_DIR").map_or_else(
        || {
            Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap())
                .join("../models/all-MiniLM-L6-v2")
        },
        PathBuf::from,
    );
    assert!(
        directory.join("model.safetensors").is_file(),
        "these tests need the real model, which is not in {}: run scripts/fetch-model",
        directory.display()
    );
    directory
}
