//! Searching by meaning, for people and for agents: a question becomes a vector, and the index
//! answers.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use commands::policies::{Knowledge, KnowledgeQuery, ToolError};
use domain::integration::IntegrationKind;
use embeddings::Embedder;
use eventlog::Position;
use projections::search::{Filters, Include, Mode, Passage, Query};
use projections::{Window, integration, knowledge_base, product, trigger};
use serde_json::Value;
use uuid::Uuid;

use crate::app::App;
use crate::http::Problem;
use crate::model::Trouble;

/// How many passages are compared.
const MOST_NEAR: usize = 50;

impl App {
    /// Searches knowledge bases; `query.vector` is made here where the mode needs one and there is none.
    ///
    /// # Errors
    /// 503 while the embedding model is missing or the index is being loaded.
    pub async fn find(&self, query: Query) -> Result<Vec<Passage>, Problem> {
        let query = self.with_vector(query).await?;
        Ok(self.search.search(query).await?)
    }

    /// A search with its vector, where its mode needs one.
    async fn with_vector(&self, mut query: Query) -> Result<Query, Problem> {
        if let Some(trouble) = self.search.trouble() {
            return Err(Problem::unavailable("search_not_ready", trouble, Duration::from_secs(1)));
        }
        if query.mode != Mode::FullText && query.vector.is_none() {
            let vector = self
                .embedder()?
                .embed_query(&query.text)
                .await
                .map_err(|error| Problem::internal(&error))?;
            query.vector = Some(vector);
        }
        Ok(query)
    }

    /// The embedding model.
    ///
    /// # Errors
    /// 503 while it is missing, or is not the one that the files were embedded by.
    pub fn embedder(&self) -> Result<Embedder, Problem> {
        self.embedder.borrow().clone().ok_or_else(|| {
            if let Some(Trouble::Unusable(why)) = &*self.model_trouble.borrow() {
                let why = format!("the embedding model cannot be used: {why}");
                return Problem::unavailable("model_unusable", why, Duration::from_secs(30));
            }
            Problem::unavailable(
                "model_missing",
                "the embedding model is missing: run `prodgy model fetch` or scripts/fetch-model, it is picked up \
                 as soon as it is there",
                Duration::from_secs(30),
            )
        })
    }
}

fn tool_error(problem: Problem) -> ToolError {
    let (code, message) = (problem.code(), problem.detail());
    match problem.status() {
        axum::http::StatusCode::SERVICE_UNAVAILABLE => ToolError::passing(code, message),
        _ => ToolError::lasting(code, message),
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
        // What is further away has nothing to do with the question.
        let embedder = self.embedder().map_err(tool_error)?;
        let near = embedder.near().await.map_err(|error| tool_error(Problem::internal(&error)))?;
        // Both searches have one vector.
        let both = self.with_vector(both).await.map_err(tool_error)?;
        let by_meaning = Query { mode: Mode::Vector, min_score: Some(near), ..both.clone() };
        // The order is that of both ways; how near a passage is, only its vector says.
        let near = self.find(by_meaning).await.map_err(tool_error)?;
        if near.is_empty() {
            return Ok(Vec::new());
        }
        let best = self.find(both).await.map_err(tool_error)?;
        let key = |passage: &Passage| (passage.file_id, passage.chunk_index);
        let scores: HashMap<_, f32> =
            near.iter().map(|passage| (key(passage), passage.score)).collect();
        let best = best.into_iter().filter_map(|passage| {
            let score = *scores.get(&key(&passage))?;
            serde_json::to_value(Passage { score, ..passage }).ok()
        });
        Ok(best.take(limit).collect())
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
