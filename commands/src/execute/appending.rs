//! Which streams are being appended to.
//!
//! The rule of this file: from before an event can be seen until its state is kept, what was kept of its stream
//! is not used. Whoever has read an event, and then asks what its stream has come to, is told of it.

use std::collections::HashMap;
use std::sync::Arc;

use eventlog::StreamId;
use parking_lot::Mutex;

/// The streams that are being appended to, and by how many.
#[derive(Clone, Default)]
pub(super) struct Appending(Arc<Mutex<HashMap<StreamId, usize>>>);

impl Appending {
    /// Says that a stream is being appended to, until the answer is dropped.
    pub(super) fn begin(&self, stream: &StreamId) -> UnderWay {
        *self.0.lock().entry(stream.clone()).or_default() += 1;
        UnderWay { appending: self.clone(), stream: stream.clone() }
    }

    pub(super) fn is_under_way(&self, stream: &StreamId) -> bool {
        self.0.lock().contains_key(stream)
    }
}

/// An append that is under way.
pub(super) struct UnderWay {
    appending: Appending,
    stream: StreamId,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut all = self.appending.0.lock();
        if let Some(count) = all.get_mut(&self.stream) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.stream);
            }
        }
    }
}
