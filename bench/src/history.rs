//! A history of a busy organization, as long as one likes: what a replay is measured with.
//!
//! The rule of this file: every event is one that the domain writes, in an order in which it can
//! have happened, with sealed texts of real length. What happens is drawn with a fixed seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Context;
use chrono::{TimeDelta, Utc};
use domain::access_log::{AccessLogEvent, Attempt, access_log_id};
use domain::agent::{AgentEvent, AgentTrigger};
use domain::api_token::ApiTokenEvent;
use domain::execution::ExecutionEvent;
use domain::file::{FileEvent, file_id};
use domain::knowledge_base::KnowledgeBaseEvent;
use domain::organization::OrganizationEvent;
use domain::product::ProductEvent;
use domain::session::{EndReason, SessionEvent};
use domain::token_usage::{TokenUsageEvent, TokenUse};
use domain::trigger::{TriggerEvent, TriggerKind};
use domain::user::UserEvent;
use domain::{
    BlobRef, Digest, FileName, Name, Object, Payload, Role, Scope, Sealed, Timestamp, TokenPrefix,
};
use eventlog::{Append, Expected, Metadata, NewEvent, StreamId};
use serde::Serialize;
use uuid::Uuid;
use vault::{MasterKey, Vault};

/// How many things go on at the same time.
const AT_ONCE: usize = 32;

/// Products of the organization.
const PRODUCTS: usize = 200;

/// Users of the organization.
const USERS: usize = 50;

/// What can happen, and how often in a hundred.
const EXECUTION: u64 = 30;
const INGESTION: u64 = EXECUTION + 20;
const USES: u64 = INGESTION + 27;
const SESSION: u64 = USES + 10;
const REFUSALS: u64 = SESSION + 3;

/// Draws numbers (xorshift64*, Vigna, 2016).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % bound
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }

    fn digest(&mut self) -> Digest {
        Digest::sha256(self.below(u64::from(u32::MAX)).to_be_bytes())
    }
}

/// A product, with what is in it and texts that were sealed for it.
struct Workspace {
    product: Uuid,
    base: Uuid,
    token: Uuid,
    agent: Uuid,
    version: Uuid,
    trigger: Uuid,
    digest: Digest,
    key: String,
    short: Sealed,
    long: Sealed,
    address: Sealed,
    user_agent: Sealed,
}

/// The events of one thing that goes on, in their order.
type Course = std::vec::IntoIter<Append>;

/// The history. An endless iterator.
pub struct History {
    dice: Dice,
    organization: Uuid,
    users: Vec<Uuid>,
    workspaces: Vec<Workspace>,
    beginning: Course,
    going_on: Vec<Course>,
}

impl History {
    /// Begins an organization. Texts are sealed under keys of a vault in `folder`.
    pub async fn begin(folder: &std::path::Path) -> anyhow::Result<History> {
        let vault = Vault::local(folder, MasterKey::generate()?).await?;
        let organization = Uuid::now_v7();
        let mut history = History {
            dice: Dice(0x9e37_79b9_7f4a_7c15),
            organization,
            users: (0..USERS).map(|_| Uuid::now_v7()).collect(),
            workspaces: vec![],
            beginning: vec![].into_iter(),
            going_on: vec![],
        };
        let mut beginning = Vec::new();
        let name = Name::parse("Acme")?;
        let system = history.system(None);
        beginning.push(append(
            "organization",
            organization,
            &system,
            &OrganizationEvent::Created { name },
        ));
        for number in 0..PRODUCTS {
            let workspace = history.workspace(&vault).await?;
            beginning.extend(history.opening(&workspace, number)?);
            history.workspaces.push(workspace);
        }
        let first = history.workspaces.first().context("there are products")?;
        for user in &history.users {
            let created = UserEvent::Created {
                email: first.short.clone(),
                name: Some(first.short.clone()),
                role: Role::Member,
                password: Some(first.short.clone()),
            };
            beginning.push(append("user", user, &system, &created));
        }
        history.beginning = beginning.into_iter();
        Ok(history)
    }

    async fn workspace(&self, vault: &Vault) -> anyhow::Result<Workspace> {
        let product = Uuid::now_v7();
        let key = format!("product-{product}");
        vault.create_key(&key).await?;
        let place = vault::Place {
            organization: self.organization,
            stream: "execution",
            event_type: "execution.requested.v1",
            field: "input",
        };
        let seal = async |length: usize| {
            let sealed = vault.seal(&key, &place, &vec![b'x'; length]).await?;
            anyhow::Ok(Sealed(String::from(sealed)))
        };
        Ok(Workspace {
            short: seal(60).await?,
            long: seal(900).await?,
            address: seal(12).await?,
            user_agent: seal(70).await?,
            product,
            key,
            base: Uuid::now_v7(),
            token: Uuid::now_v7(),
            agent: Uuid::now_v7(),
            version: Uuid::now_v7(),
            trigger: Uuid::now_v7(),
            digest: Digest::sha256(product.as_bytes()),
        })
    }

    fn metadata(
        &self,
        actor: String,
        workspace: Option<&Workspace>,
        is_from_outside: bool,
    ) -> Arc<Metadata> {
        let request = Uuid::now_v7();
        let client = workspace.filter(|_| is_from_outside);
        Arc::new(Metadata {
            organization: self.organization,
            product: workspace.map(|workspace| workspace.product),
            actor,
            correlation: request,
            causation: (!is_from_outside).then_some(request),
            request_id: Some(request.to_string()),
            traceparent: Some(format!("00-{}-00f067aa0ba902b7-01", request.simple())),
            address: client.map(|workspace| workspace.address.0.clone()),
            user_agent: client.map(|workspace| workspace.user_agent.0.clone()),
        })
    }

    fn system(&self, workspace: Option<&Workspace>) -> Arc<Metadata> {
        self.metadata("system:worker".into(), workspace, false)
    }

    fn opening(&self, workspace: &Workspace, number: usize) -> anyhow::Result<Vec<Append>> {
        let Workspace { product, base, token, agent, version, trigger, .. } = *workspace;
        let user = self.users[number % self.users.len()];
        let by = self.metadata(format!("user:{user}"), Some(workspace), true);
        let manifest = domain::catalogue::catalogue().first().context("there is a catalogue")?;
        let name = Name::parse(&format!("Product {number}"))?;
        let created = ProductEvent::Created { name, description: None, knowledge_base: base };
        let base_created = KnowledgeBaseEvent::Created {
            name: Name::parse("Default")?,
            description: None,
            default: true,
        };
        let token_created = ApiTokenEvent::Created {
            name: Name::parse("Pipeline")?,
            prefix: TokenPrefix::parse("prodgy_abcdefgh")?,
            secret_hash: Digest::sha256(token.as_bytes()),
            scopes: Scope::ALL.into_iter().collect(),
            allowed_ips: BTreeSet::new(),
            expires_at: None,
        };
        let installed = AgentEvent::Installed {
            title: manifest.title.clone(),
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            digest: workspace.digest.clone(),
            manifest: manifest.canonical().clone(),
            version_id: version,
            config: None,
            bindings: BTreeMap::new(),
            triggers: vec![AgentTrigger {
                id: trigger,
                key: "manual".into(),
                kind: TriggerKind::Manual,
                enabled: true,
                configuration: Object::new(),
            }],
        };
        let triggered = TriggerEvent::Created {
            agent,
            version_id: version,
            key: "manual".into(),
            kind: TriggerKind::Manual,
            enabled: true,
            configuration: Object::new(),
        };
        Ok(vec![
            append("product", product, &by, &created),
            append("knowledge_base", base, &by, &base_created),
            append("api_token", token, &by, &token_created),
            append("agent", agent, &by, &installed),
            append("trigger", trigger, &by, &triggered),
        ])
    }

    /// Something new begins.
    fn course(&mut self) -> Vec<Append> {
        let at = self.dice.below(self.workspaces.len() as u64) as usize;
        match self.dice.below(100) {
            draw if draw < EXECUTION => self.execution(at),
            draw if draw < INGESTION => self.ingestion(at),
            draw if draw < USES => self.uses(at),
            draw if draw < SESSION => self.session(at),
            draw if draw < REFUSALS => self.refusals(at),
            _ => self.change(at),
        }
    }

    fn execution(&mut self, at: usize) -> Vec<Append> {
        use ExecutionEvent as Did;
        let fails = self.dice.below(20) == 0;
        let workspace = &self.workspaces[at];
        let asks = self.metadata(format!("token:{}", workspace.token), Some(workspace), true);
        let runs = self.system(Some(workspace));
        let (short, long) =
            (Payload::Sealed(workspace.short.clone()), Payload::Sealed(workspace.long.clone()));
        let mut course = vec![Did::Requested {
            agent: workspace.agent,
            version_id: workspace.version,
            digest: workspace.digest.clone(),
            trigger: Some(workspace.trigger),
            input: short.clone(),
        }];
        course.push(Did::Started { worker: workspace.version, fence: 1, lease_until: soon() });
        for step in ["search", "answer"] {
            let input = Some(short.clone());
            course.push(Did::StepStarted { fence: 1, step_id: step.into(), attempt: 1, input });
            if fails {
                course.push(Did::StepFailed {
                    fence: 1,
                    step_id: step.to_owned(),
                    attempt: 1,
                    code: "timed_out".to_owned(),
                    transient: true,
                    error: short.clone(),
                });
                break;
            }
            let output = long.clone();
            course.push(Did::StepSucceeded { fence: 1, step_id: step.into(), attempt: 1, output });
        }
        course.push(if fails {
            let (step_id, code) = (Some("search".to_owned()), "timed_out".to_owned());
            Did::Failed { fence: 1, step_id, code, error: short }
        } else {
            Did::Succeeded { fence: 1, output: long }
        });
        let id = Uuid::now_v7();
        let with_key = |(number, event): (usize, ExecutionEvent)| {
            let mut append =
                append("execution", id, if number == 0 { &asks } else { &runs }, &event);
            if append.events.iter().any(|event| event.data.get().contains("s1.")) {
                append.keys.push(workspace.key.clone());
            }
            append
        };
        course.into_iter().enumerate().map(with_key).collect()
    }

    fn ingestion(&mut self, at: usize) -> Vec<Append> {
        use FileEvent as Did;
        let goes_again = self.dice.below(10) == 0;
        let size = 1_000 + self.dice.below(50_000);
        let content = Digest::sha256(Uuid::now_v7().as_bytes()).to_string();
        let workspace = &self.workspaces[at];
        let sends = self.metadata(format!("token:{}", workspace.token), Some(workspace), true);
        let works = self.system(Some(workspace));
        let blob = BlobRef { name: content.clone(), size };
        let id = file_id(workspace.base, &blob);
        let name = FileName::parse(&format!("minutes-{size}.md"));
        let Ok(name) = name else { return vec![] };
        let uploaded = Did::Uploaded {
            knowledge_base: workspace.base,
            name,
            media_type: "text/markdown".into(),
            size,
            blob,
            source: Some("wiki".into()),
            subject: None,
            language: Some("en".into()),
            tags: vec!["minutes".into(), "team".into()],
        };
        let indexed = Did::Indexed {
            fence: 1,
            artifact: format!("{}/{content}-1", workspace.product),
            chunks: (size / 900) as u32 + 1,
            characters: size,
            tokens: size / 4,
            model_revision: content[..16].to_owned(),
        };
        let mut course = vec![append("file", id, &sends, &uploaded)];
        let started =
            Did::IngestionStarted { worker: workspace.version, fence: 1, lease_until: soon() };
        let steps = [
            started,
            Did::IngestionProgressed { fence: 1, percent: 30 },
            Did::IngestionProgressed { fence: 1, percent: 70 },
            indexed,
        ];
        course.extend(steps.iter().map(|event| append("file", id, &works, event)));
        if goes_again {
            course.push(append("file", id, &sends, &Did::Deleted {}));
        }
        course
    }

    fn uses(&mut self, at: usize) -> Vec<Append> {
        let count = 1 + self.dice.below(50);
        let workspace = &self.workspaces[at];
        let works = self.system(Some(workspace));
        let one = |route: &str, status| TokenUse {
            method: "GET".into(),
            route: route.into(),
            status,
            count,
            first_at: soon(),
            last_at: soon(),
            address: Some(workspace.address.clone()),
        };
        let uses = vec![
            one("/api/knowledge-base/{productId}", 200),
            one("/api/agent-base/{id}/executions", 200),
            one("/api/executions/{executionId}", 404),
        ];
        let mut append =
            append("token_usage", workspace.token, &works, &TokenUsageEvent::Recorded { uses });
        append.keys.push(workspace.key.clone());
        vec![append]
    }

    fn session(&mut self, at: usize) -> Vec<Append> {
        use SessionEvent as Did;
        let user = *self.dice.one_of(&self.users);
        let hashes: Vec<Digest> = (0..4).map(|_| self.dice.digest()).collect();
        let by = self.metadata(format!("user:{user}"), Some(&self.workspaces[at]), true);
        let id = Uuid::now_v7();
        let course = hashes.into_iter().enumerate().map(|(number, refresh_hash)| match number {
            0 => Did::Started { user, refresh_hash, expires_at: soon() },
            _ => Did::Refreshed { refresh_hash, expires_at: soon() },
        });
        let end = Did::Ended { reason: EndReason::Logout };
        course.chain([end]).map(|event| append("session", id, &by, &event)).collect()
    }

    fn refusals(&mut self, at: usize) -> Vec<Append> {
        let workspace = &self.workspaces[at];
        let works = self.system(None);
        let attempt = Attempt {
            at: soon(),
            actor: format!("token:{}", workspace.token),
            method: "DELETE".into(),
            path: format!("/api/products/{}", workspace.product),
            route: Some("/api/products/{productId}".into()),
            status: 403,
            code: "scope_missing".into(),
            count: 2,
            last_at: soon(),
            request_ids: vec![Uuid::now_v7().to_string(), Uuid::now_v7().to_string()],
            address: Some(workspace.address.clone()),
            user_agent: Some(workspace.user_agent.clone()),
            product: Some(workspace.product),
            resource_type: Some("product".into()),
            resource_id: Some(workspace.product.to_string()),
        };
        let attempts = vec![attempt.clone(), attempt];
        let id = access_log_id(self.organization, Utc::now().date_naive());
        let mut append = append("access_log", id, &works, &AccessLogEvent::Rejected { attempts });
        append.keys.push(workspace.key.clone());
        vec![append]
    }

    fn change(&mut self, at: usize) -> Vec<Append> {
        let (draw, user) = (self.dice.below(1_000), *self.dice.one_of(&self.users));
        let workspace = &self.workspaces[at];
        let by = self.metadata(format!("user:{user}"), Some(workspace), true);
        let name = Name::parse(&format!("Renamed {draw}")).ok();
        vec![match draw % 3 {
            0 => append(
                "product",
                workspace.product,
                &by,
                &ProductEvent::Changed { name, description: None },
            ),
            1 => append(
                "knowledge_base",
                workspace.base,
                &by,
                &KnowledgeBaseEvent::Changed { name, description: None },
            ),
            _ => append(
                "api_token",
                workspace.token,
                &by,
                &ApiTokenEvent::Changed { name, scopes: None, allowed_ips: None },
            ),
        }]
    }
}

impl Iterator for History {
    type Item = Append;

    fn next(&mut self) -> Option<Append> {
        if let Some(append) = self.beginning.next() {
            return Some(append);
        }
        loop {
            while self.going_on.len() < AT_ONCE {
                let course = self.course().into_iter();
                self.going_on.push(course);
            }
            let at = self.dice.below(AT_ONCE as u64) as usize;
            match self.going_on[at].next() {
                Some(append) => return Some(append),
                None => {
                    self.going_on.swap_remove(at);
                }
            }
        }
    }
}

fn soon() -> Timestamp {
    (Utc::now() + TimeDelta::minutes(1)).into()
}

fn append<E: Serialize>(
    category: &str,
    id: impl std::fmt::Display,
    metadata: &Arc<Metadata>,
    event: &E,
) -> Append {
    let (event_type, data) = domain::event::encode(event);
    Append {
        stream: StreamId::new(category, id),
        expected: Expected::Any,
        command_id: Uuid::now_v7(),
        request_hash: None,
        metadata: metadata.clone(),
        keys: vec![],
        events: vec![NewEvent { event_type, data, metadata: None }],
    }
}
