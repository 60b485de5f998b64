//! From which cosine on a passage has something to do with a question. The one rule: it is measured on the model itself, since what
//! one model calls near is what another calls far: unrelated texts are at 0.05 in all-MiniLM-L6-v2 and above 0.7 in E5.

use crate::embedder::Embedder;
use crate::error::ModelError;

/// Questions, and passages that answer each of them and none of the others.
const SUBJECTS: [(&str, &str); 12] = [
    (
        "How long must the dough rest?",
        "Bread dough is kneaded for ten minutes and then rests, covered, until it has doubled.",
    ),
    (
        "Which planet has the most moons?",
        "Saturn is circled by more than a hundred known moons; Titan alone has a dense atmosphere.",
    ),
    (
        "When is the tax return due?",
        "Income tax returns are to be handed in by the end of July of the year that follows.",
    ),
    (
        "How did the final of the cup end?",
        "Two late goals decided the match, and the home team won the football cup after extra time.",
    ),
    (
        "What does an index do for a query?",
        "A database finds rows by a B-tree instead of reading the whole table, at the price of slower writes.",
    ),
    (
        "What helps against a fever?",
        "Patients with a high temperature should drink enough and may take paracetamol every six hours.",
    ),
    (
        "When are roses cut back?",
        "Rose bushes are pruned in early spring, a little above a bud that points outwards.",
    ),
    (
        "Who ruled after the king had died?",
        "The crown passed to his nephew in 1483, and the nobles of the north rose against him.",
    ),
    (
        "What makes a minor scale sound sad?",
        "The third note of a minor key lies a semitone lower than in a major one.",
    ),
    (
        "How often is the oil changed?",
        "Engine oil and its filter are replaced every fifteen thousand kilometres or once a year.",
    ),
    (
        "When does the ferry leave for the island?",
        "Ships to the archipelago sail from the old harbour each morning, except in a storm.",
    ),
    (
        "At what age do babies begin to walk?",
        "Most children take their first steps around their first birthday, holding on to furniture.",
    ),
];

/// How many standard deviations above the mean of unrelated texts: in a normal distribution one in a thousand is.
const DEVIATIONS: f32 = 3.0;

impl Embedder {
    /// The least cosine of a passage that has something to do with a question, by this model: what unrelated texts hardly
    /// ever reach. The first call embeds a few texts for it.
    ///
    /// # Errors
    /// The model fails.
    pub async fn near(&self) -> Result<f32, ModelError> {
        self.nearness().get_or_try_init(|| self.measure()).await.copied()
    }

    async fn measure(&self) -> Result<f32, ModelError> {
        let passages = SUBJECTS.iter().map(|(_, passage)| (*passage).to_owned()).collect();
        let passages = self.embed_passages(passages).await?;
        let mut unrelated = Vec::new();
        for (asked, (question, _)) in SUBJECTS.iter().enumerate() {
            let question = self.embed_query(question).await?;
            let others = passages.iter().enumerate().filter(|(of, _)| *of != asked);
            unrelated.extend(others.map(|(_, passage)| cosine(&question, passage)));
        }
        let count = unrelated.len() as f32;
        let mean = unrelated.iter().sum::<f32>() / count;
        let variance = unrelated.iter().map(|it| (it - mean).powi(2)).sum::<f32>() / count;
        Ok(mean + DEVIATIONS * variance.sqrt())
    }
}

/// Of vectors of length one.
fn cosine(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}
