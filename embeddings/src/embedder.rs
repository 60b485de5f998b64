//! The threads that embed. The one rule: a question never waits for a file. Questions are taken first, and a worker in the middle
//! of passages looks for questions after every layer, so the longest wait is one layer of one batch (a few milliseconds). Nor do
//! files wait for ever: where questions never end, a layer of passages is done after every few of them.

use std::collections::VecDeque;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OnceCell, oneshot};

use crate::error::ModelError;
use crate::model::{Model, Scratch};

/// Passages are done in batches of about this many bytes of text (some 130 tokens): enough rows to make reading the weights worth
/// while (twice as many gain nothing), few enough that a layer of them, which a question waits for, takes a few milliseconds.
const BATCH_BYTES: usize = 600;

/// How many questions a worker answers one after the other while passages wait.
const IN_A_ROW: usize = 4;

type Vectors = Result<Vec<Vec<f32>>, ModelError>;

/// Texts to embed together, and where the vectors go.
struct Job {
    texts: Vec<String>,
    answer: oneshot::Sender<Vectors>,
}

#[derive(Default)]
struct Waiting {
    questions: VecDeque<Job>,
    passages: VecDeque<Job>,
    closed: bool,
}

impl Waiting {
    /// The next job, and whether it is a question.
    fn next(&mut self, passages_first: bool) -> Option<(Job, bool)> {
        let question = |waiting: &mut Waiting| Some((waiting.questions.pop_front()?, true));
        let passages = |waiting: &mut Waiting| Some((waiting.passages.pop_front()?, false));
        match passages_first {
            true => passages(self).or_else(|| question(self)),
            false => question(self).or_else(|| passages(self)),
        }
    }
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    filled: Condvar,
}

/// Turns texts into vectors of unit length, on threads of its own: one single-threaded worker per core does more than one worker
/// of many threads. Cheap to clone; the threads end with the last clone.
#[derive(Clone)]
pub struct Embedder {
    model: Model,
    owner: Arc<Owner>,
}

/// Closes the queue when the last [`Embedder`] is dropped.
struct Owner {
    queue: Arc<Queue>,
    /// From which cosine on a passage is near, once that was measured.
    near: OnceCell<f32>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.queue.waiting.lock().closed = true;
        self.queue.filled.notify_all();
    }
}

impl Embedder {
    /// Starts `workers` threads, at least one; [`Embedder::default_workers`] is the right number.
    pub fn new(model: Model, workers: usize) -> Self {
        let queue = Arc::new(Queue::default());
        for number in 0..workers.max(1) {
            let (model, queue) = (model.clone(), Arc::clone(&queue));
            thread::Builder::new()
                .name(format!("embed-{number}"))
                .spawn(move || work(&model, &queue))
                .expect("a process that starts can start a few threads");
        }
        Self { model, owner: Arc::new(Owner { queue, near: OnceCell::new() }) }
    }

    /// One worker per core.
    pub fn default_workers() -> usize {
        thread::available_parallelism().map_or(1, NonZero::get)
    }

    /// The model in use.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The vector of a question, before all passages.
    pub async fn embed_query(&self, text: &str) -> Result<Vec<f32>, ModelError> {
        let text = format!("{}{text}", self.model.before_question());
        let answer = self.enqueue(|waiting| &mut waiting.questions, vec![text]);
        let mut vectors = answer.await.unwrap_or(Err(ModelError::Stopped))?;
        vectors.pop().ok_or(ModelError::Stopped)
    }

    /// The vectors of passages, in their order. Dropping the future gives up what has not begun.
    pub async fn embed_passages(
        &self,
        mut texts: Vec<String>,
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        texts.iter_mut().for_each(|text| text.insert_str(0, self.model.before_passage()));
        let mut vectors = Vec::with_capacity(texts.len());
        let mut answers = Vec::new();
        for batch in batches(texts) {
            answers.push(self.enqueue(|waiting| &mut waiting.passages, batch));
        }
        for answer in answers {
            vectors.extend(answer.await.unwrap_or(Err(ModelError::Stopped))?);
        }
        Ok(vectors)
    }

    pub(crate) fn nearness(&self) -> &OnceCell<f32> {
        &self.owner.near
    }

    fn enqueue(
        &self,
        line: fn(&mut Waiting) -> &mut VecDeque<Job>,
        texts: Vec<String>,
    ) -> oneshot::Receiver<Vectors> {
        let (answer, receiver) = oneshot::channel();
        line(&mut self.owner.queue.waiting.lock()).push_back(Job { texts, answer });
        self.owner.queue.filled.notify_one();
        receiver
    }
}

impl std::fmt::Debug for Embedder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Embedder").field("model", &self.model).finish_non_exhaustive()
    }
}

/// Consecutive texts in groups of about [`BATCH_BYTES`]. Texts of any lengths go together: nothing is padded.
fn batches(texts: Vec<String>) -> Vec<Vec<String>> {
    let mut batches: Vec<Vec<String>> = Vec::new();
    let mut room = 0;
    for text in texts {
        match batches.last_mut() {
            Some(batch) if text.len() <= room => {
                room -= text.len();
                batch.push(text);
            }
            _ => {
                room = BATCH_BYTES.saturating_sub(text.len());
                batches.push(vec![text]);
            }
        }
    }
    batches
}

/// A worker's life.
fn work(model: &Model, queue: &Queue) {
    let mut scratch = Scratch::default();
    let mut scratch_for_questions = Scratch::default();
    let mut in_a_row = 0;
    loop {
        let mut waiting = queue.waiting.lock();
        let (job, is_question) = loop {
            if let Some(next) = waiting.next(in_a_row >= IN_A_ROW) {
                break next;
            }
            if waiting.closed {
                return;
            }
            queue.filled.wait(&mut waiting);
        };
        drop(waiting);
        in_a_row = if is_question { in_a_row + 1 } else { 0 };
        embed(model, job, &mut scratch, &mut || {
            for question in std::iter::from_fn(|| next_question(queue)).take(IN_A_ROW) {
                embed(model, question, &mut scratch_for_questions, &mut || {});
            }
        });
    }
}

fn next_question(queue: &Queue) -> Option<Job> {
    queue.waiting.lock().questions.pop_front()
}

/// Does one job, unless nobody waits for it any more. A panic costs this job, not the worker: nobody would be left to answer.
fn embed(model: &Model, job: Job, scratch: &mut Scratch, between: &mut dyn FnMut()) {
    if job.answer.is_closed() {
        return;
    }
    let vectors = catch_unwind(AssertUnwindSafe(|| {
        let tokens: Result<Vec<_>, _> = job.texts.iter().map(|text| model.tokenize(text)).collect();
        tokens.map(|tokens| model.forward(&tokens, scratch, between))
    }));
    // Whoever asked may have gone in the meantime.
    let _ = job.answer.send(vectors.unwrap_or(Err(ModelError::Failed)));
}
