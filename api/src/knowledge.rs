//! Searching by meaning, for people and for agents: a question becomes a vector, and the index
//! answers.
//!
//! The rule of this file: a vector is compared with those of the model that made it, whichever generation answers by now.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use commands::policies::{Knowledge, KnowledgeQuery, ToolError};
use domain::FileName;
use domain::integration::IntegrationKind;
use embeddings::Embedder;
use eventlog::Position;
use projections::search::{Active, Filters, Include, Mode, Passage, Query};
use projections::{Window, file, integration, knowledge_base, product, trigger};
use serde_json::Value;
use uuid::Uuid;

use crate::app::App;
use crate::http::Problem;
use crate::model::Trouble;

/// How many passages are compared.
const MOST_NEAR: usize = 50;

/// How often a search is begun anew because the generation that it was for was removed in the meantime.
const TRIES: usize = 3;

/// A search with its vector, which says something in the generation of the model that made it, and nowhere else.
struct Embedded {
    query: Query,
    /// That model's.
    revision: String,
}

impl App {
    /// Searches knowledge bases; `query.vector` is made here where the mode needs one and there is none.
    ///
    /// # Errors
    /// 503 while the embedding model is missing or the index is being loaded.
    pub async fn find(&self, query: Query) -> Result<Vec<Passage>, Problem> {
        self.check_search()?;
        if query.mode == Mode::FullText || query.vector.is_some() {
            return Ok(self.search.search(query).await?);
        }
        let query = &query;
        let search = |embedder| async move {
            self.find_embedded(embed(&embedder, query.clone()).await?).await
        };
        self.by_answering_model(search).await
    }

    /// Searches with the model of the generation that answers; once more where that one was gone meanwhile.
    async fn by_answering_model<T, F: Future<Output = Result<Option<T>, Problem>>>(
        &self,
        search: impl Fn(Embedder) -> F,
    ) -> Result<T, Problem> {
        for _ in 0..TRIES {
            if let Some(found) = search(self.answering_embedder()?).await? {
                return Ok(found);
            }
        }
        Err(switching())
    }

    /// Searches the generation of the model that made the vector, though another may answer by now; `None` where that one is gone.
    async fn find_embedded(&self, embedded: Embedded) -> Result<Option<Vec<Passage>>, Problem> {
        let Embedded { query, revision } = embedded;
        match self.search.search_in(&revision, query).await? {
            // Nothing was embedded yet.
            None if *self.search.watch().borrow().active() == Active::Nothing => {
                Ok(Some(Vec::new()))
            }
            found => Ok(found),
        }
    }

    /// What has something to do with a question, by this model, best first; `None` where its generation is gone.
    async fn near_by(
        &self,
        embedder: &Embedder,
        both: Query,
    ) -> Result<Option<Vec<Value>>, Problem> {
        // What is further away has nothing to do with the question.
        let near = embedder.near().await.map_err(|error| Problem::internal(&error))?;
        // Both searches have one vector.
        let Embedded { query: both, revision } = embed(embedder, both).await?;
        let by_meaning = Query { mode: Mode::Vector, min_score: Some(near), ..both.clone() };
        let by_meaning = Embedded { query: by_meaning, revision: revision.clone() };
        // The order is that of both ways; how near a passage is, only its vector says.
        let Some(near) = self.find_embedded(by_meaning).await? else { return Ok(None) };
        if near.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let Some(best) = self.find_embedded(Embedded { query: both, revision }).await? else {
            return Ok(None);
        };
        let key = |passage: &Passage| (passage.file_id, passage.chunk_index);
        let scores: HashMap<_, f32> =
            near.iter().map(|passage| (key(passage), passage.score)).collect();
        let best = best.into_iter().filter_map(|passage| {
            let score = *scores.get(&key(&passage))?;
            serde_json::to_value(Passage { score, ..passage }).ok()
        });
        Ok(Some(best.collect()))
    }

    fn check_search(&self) -> Result<(), Problem> {
        match self.search.trouble() {
            Some(trouble) => {
                Err(Problem::unavailable("search_not_ready", trouble, Duration::from_secs(1)))
            }
            None => Ok(()),
        }
    }

    /// The embedding model of the generation that answers at this moment. Which model is in use is known a moment later.
    fn answering_embedder(&self) -> Result<Embedder, Problem> {
        let active = self.search.watch().borrow().active().clone();
        let Active::Model(revision) = active else { return self.embedder() };
        let found =
            self.models.borrow().iter().find(|it| *it.model().revision() == *revision).cloned();
        found.map_or_else(|| self.embedder(), Ok)
    }

    /// The embedding model.
    ///
    /// # Errors
    /// 503 while it is missing, or is not the one that the files were embedded by.
    pub fn embedder(&self) -> Result<Embedder, Problem> {
        self.embedder.borrow().clone().ok_or_else(|| match &*self.model_trouble.borrow() {
            Some(Trouble::Unusable(why)) => {
                let why = format!("the embedding model cannot be used: {why}");
                Problem::unavailable("model_unusable", why, Duration::from_secs(30))
            }
            Some(Trouble::Missing) => Problem::unavailable(
                "model_missing",
                "the embedding model is missing: run `prodgy model fetch` or scripts/fetch-model, it is picked up \
                 as soon as it is there",
                Duration::from_secs(30),
            ),
            None => Problem::unavailable(
                "model_missing",
                "the embedding model is not loaded yet: the server has only just started",
                Duration::from_secs(1),
            ),
        })
    }
}

/// A search with its vector.
async fn embed(embedder: &Embedder, mut query: Query) -> Result<Embedded, Problem> {
    let vector = embedder.embed_query(&query.text).await;
    query.vector = Some(vector.map_err(|error| Problem::internal(&error))?);
    Ok(Embedded { query, revision: embedder.model().revision().to_owned() })
}

fn switching() -> Problem {
    let why = "another embedding model is being switched to: try again in a moment";
    Problem::unavailable("search_not_ready", why, Duration::from_secs(1))
}

fn tool_error(problem: Problem) -> ToolError {
    let (code, message) = (problem.code(), problem.detail());
    match problem.status().is_server_error() {
        true => ToolError::passing(code, message),
        false => ToolError::lasting(code, message),
    }
}

#[async_trait]
impl Knowledge for App {
    async fn search(&self, query: KnowledgeQuery) -> Result<Vec<Value>, ToolError> {
        let mode = serde_json::from_value(Value::String(query.mode)).unwrap_or_default();
        let filters: Filters = serde_json::from_value(Value::Object(query.filters))
            .map_err(|error| ToolError::lasting("filters_invalid", error.to_string()))?;
        let found = self.find(Query {
            knowledge_bases: vec![query.knowledge_base],
            text: query.query,
            vector: None,
            mode,
            limit: query.limit,
            min_score: query.min_score,
            filters,
            include: Include { highlights: Some(false), ..Include::default() },
        });
        let passages = found.await.map_err(tool_error)?;
        Ok(passages.iter().filter_map(|passage| serde_json::to_value(passage).ok()).collect())
    }

    async fn near(
        &self,
        product: Uuid,
        query: String,
        limit: usize,
    ) -> Result<Vec<Value>, ToolError> {
        let knowledge_bases =
            self.read(|db| knowledge_base::ids(db, product)).map_err(tool_error)?;
        let both = Query {
            knowledge_bases,
            text: query,
            vector: None,
            mode: Mode::Hybrid,
            limit: MOST_NEAR,
            min_score: None,
            filters: Filters::default(),
            include: Include::default(),
        };
        self.check_search().map_err(tool_error)?;
        let both = &both;
        let search = |embedder| async move { self.near_by(&embedder, both.clone()).await };
        let best = self.by_answering_model(search).await.map_err(tool_error)?;
        Ok(best.into_iter().take(limit).collect())
    }

    async fn default_base(&self, product: Uuid) -> Result<Uuid, ToolError> {
        let found = self.read(|db| product::get(db, product)).map_err(tool_error)?;
        found
            .map(|product| product.default_knowledge_base_id)
            .ok_or_else(|| ToolError::lasting("product_not_found", "the product was deleted"))
    }

    async fn has_base(&self, product: Uuid, base: Uuid) -> Result<bool, ToolError> {
        let found = self.read(|db| knowledge_base::get(db, base)).map_err(tool_error)?;
        Ok(found.is_some_and(|base| base.product_id == product))
    }

    async fn newest_named(
        &self,
        base: Uuid,
        name: &FileName,
        at: Position,
    ) -> Result<Option<Uuid>, ToolError> {
        self.caught_up(at).await.map_err(tool_error)?;
        self.read(|db| file::newest_named(db, base, name.as_str(), "")).map_err(tool_error)
    }

    async fn integrations(
        &self,
        organization: Uuid,
        product: Uuid,
        kind: IntegrationKind,
    ) -> Result<Vec<Uuid>, ToolError> {
        let window = Window::first(2);
        let found = self
            .read(|db| integration::active(db, organization, product, Some(kind), window))
            .map_err(tool_error)?;
        Ok(found.items.into_iter().map(|found| found.id).collect())
    }

    async fn message_triggers(&self, product: Uuid, at: Position) -> Result<Vec<Uuid>, ToolError> {
        self.caught_up(at).await.map_err(tool_error)?;
        self.read(|db| trigger::of_messages(db, product)).map_err(tool_error)
    }
}
