//! One example of every event, and of every shape that it is written in. A new event begins with an
//! example here; the test then writes its golden file.

use std::collections::{BTreeMap, BTreeSet};

use domain::access_log::{AccessLog, AccessLogEvent, Attempt};
use domain::agent::{Agent, AgentEvent, AgentTrigger};
use domain::api_token::{ApiToken, ApiTokenEvent};
use domain::bulk_stop::{BulkStop, BulkStopEvent};
use domain::chat::run::{ChatRun, ChatRunEvent};
use domain::chat::{ChatSession, ChatSessionEvent};
use domain::claim::{Claim, ClaimEvent, ClaimKind};
use domain::conversation::{Conversation, ConversationEvent, Message, Reply};
use domain::delivery::{Delivery, DeliveryEvent, Receipt};
use domain::evaluation::{Evaluation, EvaluationEvent, Latency, Scores, Summary};
use domain::execution::{CancelReason, Execution, ExecutionEvent, TimeLimit};
use domain::file::{File, FileEvent};
use domain::generation::{EmbeddingModel, Generation, GenerationEvent};
use domain::instance::{Instance, InstanceEvent, KeyAlgorithm, KeyPurpose};
use domain::integration::{Integration, IntegrationEvent, IntegrationKind};
use domain::integration_use::{IntegrationUse, IntegrationUseEvent};
use domain::knowledge_base::{KnowledgeBase, KnowledgeBaseEvent};
use domain::lane::{Guest, Lane, LaneEvent};
use domain::listening::{Listening, ListeningEvent};
use domain::organization::{Organization, OrganizationEvent};
use domain::product::{Product, ProductEvent};
use domain::reaction::{Reaction, ReactionEvent};
use domain::schedule::firings::{FiringEvent, Firings, SkipReason};
use domain::session::{EndReason, Session, SessionEvent};
use domain::token_usage::{TokenUsage, TokenUsageEvent, TokenUse};
use domain::trigger::{Trigger, TriggerEvent, TriggerKind};
use domain::user::{User, UserEvent};
use domain::{
    BlobRef, Description, Digest, FileName, Name, Object, Payload, Role, Scope, Sealed, Timestamp,
    TokenPrefix,
};
use serde_json::json;
use uuid::Uuid;

use crate::Visit;

pub fn for_every_aggregate(visit: &mut impl Visit) {
    visit.visit::<AccessLog>(&access_log());
    visit.visit::<Agent>(&agent());
    visit.visit::<ApiToken>(&api_token());
    visit.visit::<BulkStop>(&bulk_stop());
    visit.visit::<ChatRun>(&chat_run());
    visit.visit::<ChatSession>(&chat_session());
    visit.visit::<Claim>(&claim());
    visit.visit::<Conversation>(&conversation());
    visit.visit::<Delivery>(&delivery());
    visit.visit::<Evaluation>(&evaluation());
    visit.visit::<Execution>(&execution());
    visit.visit::<Firings>(&firings());
    visit.visit::<File>(&file());
    visit.visit::<Generation>(&generation());
    visit.visit::<Instance>(&instance());
    visit.visit::<Integration>(&integration());
    visit.visit::<IntegrationUse>(&integration_use());
    visit.visit::<KnowledgeBase>(&knowledge_base());
    visit.visit::<Lane>(&lane());
    visit.visit::<Listening>(&[("", ListeningEvent::Advanced { position: 12_345 })]);
    visit.visit::<Organization>(&organization());
    visit.visit::<Product>(&product());
    visit.visit::<Reaction>(&reaction());
    visit.visit::<Session>(&session());
    visit.visit::<TokenUsage>(&token_usage());
    visit.visit::<Trigger>(&trigger());
    visit.visit::<User>(&user());
}

fn access_log() -> Vec<(&'static str, AccessLogEvent)> {
    let bare = Attempt {
        at: at(0),
        actor: "anonymous".to_owned(),
        method: "GET".to_owned(),
        path: "/api/nothing".to_owned(),
        route: None,
        status: 404,
        code: "route_not_found".to_owned(),
        count: 1,
        last_at: at(0),
        request_ids: vec![],
        address: None,
        user_agent: None,
        product: None,
        resource_type: None,
        resource_id: None,
    };
    let full = Attempt {
        actor: format!("token:{}", id(4)),
        path: format!("/api/agent-base/{}", id(5)),
        route: Some("/api/agent-base/{id}".to_owned()),
        status: 403,
        code: "scope_missing".to_owned(),
        count: 12,
        last_at: at(59),
        request_ids: vec!["req-1".to_owned(), "req-2".to_owned()],
        address: Some(sealed("address")),
        user_agent: Some(sealed("user-agent")),
        product: Some(id(2)),
        resource_type: Some("agent".to_owned()),
        resource_id: Some(id(5).to_string()),
        ..bare.clone()
    };
    vec![("", AccessLogEvent::Rejected { attempts: vec![full, bare] })]
}

fn agent() -> Vec<(&'static str, AgentEvent)> {
    let manifest = json!({
        "manifest": "prodgy.agent/1", "name": "acme.counter", "version": "1.0.0", "title": "Counter",
        "requires": { "knowledge": [{ "slot": "handbook" }] },
        "steps": [{ "id": "one", "type": "transform", "with": { "ratio": 0.5, "value": { "cel": "input.n + 1" } } }],
    });
    let installed = |config, bindings| AgentEvent::Installed {
        title: name("Counter"),
        name: "acme.counter".to_owned(),
        version: "1.0.0".to_owned(),
        digest: Digest::sha256("manifest"),
        manifest: manifest.as_object().cloned().unwrap(),
        version_id: id(2),
        config,
        bindings,
        triggers: vec![AgentTrigger {
            id: id(3),
            key: "manual".to_owned(),
            kind: TriggerKind::Manual,
            enabled: true,
            configuration: Object::new(),
        }],
    };
    vec![
        ("", installed(Some(sealed("config")), BTreeMap::from([("handbook".to_owned(), id(6))]))),
        ("bare", installed(None, BTreeMap::new())),
        ("", AgentEvent::Changed { title: Some(name("Adder")) }),
        ("", AgentEvent::Configured { config: sealed("config") }),
        (
            "",
            AgentEvent::VersionPublished {
                version_id: id(4),
                name: "acme.counter".to_owned(),
                version: "1.1.0".to_owned(),
                digest: Digest::sha256("another manifest"),
                manifest: manifest.as_object().cloned().unwrap(),
                triggers: vec![AgentTrigger {
                    id: id(5),
                    key: "nightly".to_owned(),
                    kind: TriggerKind::Schedule,
                    enabled: true,
                    configuration: json!({ "cron": "0 3 * * *" }).as_object().cloned().unwrap(),
                }],
            },
        ),
        ("", AgentEvent::VersionActivated { version_id: id(4) }),
        ("", AgentEvent::Bound { bindings: BTreeMap::from([("handbook".to_owned(), id(7))]) }),
        ("", AgentEvent::Enabled {}),
        ("", AgentEvent::Disabled {}),
        ("", AgentEvent::Uninstalled {}),
    ]
}

fn api_token() -> Vec<(&'static str, ApiTokenEvent)> {
    let prefix = || TokenPrefix::parse("prodgy_abcdEF01").unwrap();
    let created = |allowed_ips: &[&str], expires_at| ApiTokenEvent::Created {
        name: name("Deploy"),
        prefix: prefix(),
        secret_hash: Digest::sha256("secret"),
        scopes: Scope::ALL.into(),
        allowed_ips: allowed_ips.iter().map(|range| range.parse().unwrap()).collect(),
        expires_at,
    };
    let regenerated = |previous_valid_until| ApiTokenEvent::Regenerated {
        prefix: prefix(),
        secret_hash: Digest::sha256("new secret"),
        previous_valid_until,
    };
    vec![
        ("", created(&["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"], Some(at(100)))),
        ("bare", created(&[], None)),
        (
            "",
            ApiTokenEvent::Changed {
                name: Some(name("Release")),
                scopes: Some([Scope::AgentsRead, Scope::KnowledgeWrite].into()),
                allowed_ips: Some([].into()),
            },
        ),
        ("bare", ApiTokenEvent::Changed { name: None, scopes: None, allowed_ips: None }),
        ("", ApiTokenEvent::Activated {}),
        ("", ApiTokenEvent::Deactivated {}),
        ("", ApiTokenEvent::Revoked {}),
        ("", ApiTokenEvent::Expired { expired_at: at(100) }),
        ("", ApiTokenEvent::Renewed { expires_at: Some(at(200)) }),
        ("bare", ApiTokenEvent::Renewed { expires_at: None }),
        ("", regenerated(Some(at(60)))),
        ("bare", regenerated(None)),
        ("", ApiTokenEvent::Deleted {}),
    ]
}

fn claim() -> Vec<(&'static str, ClaimEvent)> {
    let taken =
        |kind, holder: &str| ClaimEvent::Taken { kind, holder: format!("{holder}-{}", id(1)) };
    vec![
        ("", taken(ClaimKind::Email, "user")),
        ("webhook_path", taken(ClaimKind::WebhookPath, "trigger")),
        ("identity", taken(ClaimKind::Identity, "user")),
        ("manifest", taken(ClaimKind::Manifest, "agent")),
        (
            "manifest_digest",
            ClaimEvent::Taken {
                kind: ClaimKind::Manifest,
                holder: format!("manifest-{}", Digest::sha256("manifest")),
            },
        ),
        ("upload_key", taken(ClaimKind::UploadKey, "file")),
        ("", ClaimEvent::Released { holder: format!("user-{}", id(1)) }),
    ]
}

fn execution() -> Vec<(&'static str, ExecutionEvent)> {
    let blob = || Payload::Blob {
        key_id: format!("product-{}", id(2)),
        name: "ab".repeat(32),
        size: 20_000,
    };
    let requested = |trigger, input| ExecutionEvent::Requested {
        agent: id(1),
        version_id: id(2),
        digest: Digest::sha256("manifest"),
        trigger,
        input,
    };
    let failed = |step_id| ExecutionEvent::Failed {
        fence: 1,
        step_id,
        code: "step_failed".to_owned(),
        error: payload("why"),
    };
    let step_started = |input| ExecutionEvent::StepStarted {
        fence: 1,
        step_id: "one".to_owned(),
        attempt: 1,
        input,
    };
    let cancelled = |reason| ExecutionEvent::Cancelled { reason };
    vec![
        ("", requested(Some(id(3)), payload("input"))),
        ("blob", requested(None, blob())),
        ("", ExecutionEvent::Started { worker: id(9), fence: 1, lease_until: at(60) }),
        ("", step_started(Some(payload("input")))),
        ("bare", step_started(None)),
        (
            "",
            ExecutionEvent::StepSucceeded {
                fence: 1,
                step_id: "one".to_owned(),
                attempt: 1,
                output: payload("output"),
            },
        ),
        (
            "",
            ExecutionEvent::StepFailed {
                fence: 1,
                step_id: "one".to_owned(),
                attempt: 1,
                code: "cel_failed".to_owned(),
                transient: false,
                error: payload("why"),
            },
        ),
        ("", ExecutionEvent::StepSkipped { fence: 1, step_id: "two".to_owned() }),
        ("", ExecutionEvent::StepReused { step_id: "one".to_owned(), output: payload("output") }),
        ("", ExecutionEvent::Retried { of: id(4), from_step: Some("two".to_owned()) }),
        ("bare", ExecutionEvent::Retried { of: id(4), from_step: None }),
        (
            "",
            ExecutionEvent::Reacted {
                event: id(8),
                event_type: "file.indexed.v1".to_owned(),
                subject: format!("file-{}", id(9)),
                depth: 2,
            },
        ),
        ("", ExecutionEvent::Waiting { fence: 1, step_id: "two".to_owned(), until: at(3_600) }),
        ("", ExecutionEvent::Paused {}),
        ("", ExecutionEvent::Continued {}),
        ("", ExecutionEvent::TimedOut { limit: TimeLimit::Execution }),
        ("queue", ExecutionEvent::TimedOut { limit: TimeLimit::Queue }),
        ("", ExecutionEvent::Succeeded { fence: 1, output: payload("output") }),
        ("", failed(Some("one".to_owned()))),
        ("bare", failed(None)),
        ("", cancelled(CancelReason::Stopped)),
        ("agent_uninstalled", cancelled(CancelReason::AgentUninstalled)),
        ("product_deleted", cancelled(CancelReason::ProductDeleted)),
        ("superseded", cancelled(CancelReason::Superseded)),
        ("concurrency_limit", cancelled(CancelReason::ConcurrencyLimit)),
    ]
}

fn firings() -> Vec<(&'static str, FiringEvent)> {
    let skipped = |reason| FiringEvent::Skipped { instant: at(2), reason };
    let error = payload("error");
    vec![
        ("", FiringEvent::Fired { instant: at(0), execution: id(1) }),
        ("", FiringEvent::Queued { instant: at(1) }),
        ("", skipped(SkipReason::Overlap)),
        ("queue_full", skipped(SkipReason::QueueFull)),
        ("outdated", skipped(SkipReason::Outdated)),
        ("", FiringEvent::PassedOver { up_to: at(3) }),
        ("", FiringEvent::Failed { instant: at(0), code: "input_invalid".to_owned(), error }),
    ]
}

fn lane() -> Vec<(&'static str, LaneEvent)> {
    let key = || Some(Digest::sha256("key"));
    let (execution, requested_at) = (id(8), at(1));
    let guest = |number, key| Guest { execution: id(number), key, requested_at };
    vec![
        ("", LaneEvent::Queued { execution, key: key(), requested_at }),
        ("bare", LaneEvent::Queued { execution, key: None, requested_at }),
        ("", LaneEvent::Entered { execution, key: key(), requested_at }),
        ("bare", LaneEvent::Entered { execution, key: None, requested_at }),
        ("", LaneEvent::Left { execution, key: key() }),
        ("bare", LaneEvent::Left { execution, key: None }),
        (
            "",
            LaneEvent::Summarized { inside: vec![guest(9, key())], waiting: vec![guest(8, None)] },
        ),
    ]
}

fn reaction() -> Vec<(&'static str, ReactionEvent)> {
    let (event_type, subject) = ("file.indexed.v1".to_owned(), format!("file-{}", id(9)));
    let failed = ReactionEvent::Failed {
        event: id(8),
        event_type: event_type.clone(),
        subject: subject.clone(),
        code: "input_invalid".to_owned(),
        error: payload("error"),
    };
    let too_deep = ReactionEvent::TooDeep { event: id(8), event_type, subject, depth: 4 };
    vec![("", failed), ("", too_deep)]
}

fn chat_session() -> Vec<(&'static str, ChatSessionEvent)> {
    use ChatSessionEvent as Did;
    let (session_id, title) = (sealed("session_id"), sealed("title"));
    vec![
        ("", Did::Started { session_id, title: title.clone() }),
        ("", Did::MessageAsked { run: id(1), message: payload("message") }),
        ("", Did::Renamed { title }),
        ("", Did::Deleted {}),
    ]
}

fn chat_run() -> Vec<(&'static str, ChatRunEvent)> {
    use ChatRunEvent as Did;
    let progressed = |text| Did::Progressed { fence: 1, lease_until: at(60), written: 12, text };
    vec![
        ("", Did::Requested { session: Some(id(1)), messages: None }),
        ("stateless", Did::Requested { session: None, messages: Some(payload("messages")) }),
        ("", Did::Started { worker: id(9), fence: 1, lease_until: at(60) }),
        ("", Did::Retrieved { fence: 1, passages: 8 }),
        ("", progressed(Some(payload("text")))),
        ("silent", progressed(None)),
        ("", Did::Succeeded { fence: 1, written: 12, answer: payload("answer") }),
        (
            "",
            Did::Failed {
                fence: 1,
                code: "llm_unreachable".to_owned(),
                error: payload("error"),
                transient: true,
            },
        ),
        ("", Did::Cancelled {}),
    ]
}

fn conversation() -> Vec<(&'static str, ConversationEvent)> {
    use ConversationEvent as Did;
    let (integration, message, reply) = (id(1), id(2), id(3));
    let code = || "unavailable".to_owned();
    let answer = Reply {
        integration,
        reply,
        message: Some(message),
        execution: Some(id(4)),
        step_id: Some("tell".to_owned()),
        content: payload("content"),
    };
    let bare = Reply { message: None, execution: None, step_id: None, ..answer.clone() };
    let attempted = |execution| Did::ReplyAttempted {
        reply,
        attempt: 1,
        worker: id(9),
        lease_until: at(60),
        integration,
        secrets_version: 2,
        execution,
    };
    let failed = Did::ReplyFailed {
        reply,
        attempt: 1,
        code: code(),
        error: payload("error"),
        retry_at: at(61),
    };
    let taken =
        Did::FileTaken { message, number: 0, knowledge_base: id(7), file: id(8), is_known: false };
    vec![
        ("", Did::MessageReceived(Message { integration, message, content: payload("content") })),
        ("", Did::MessageChanged { message, content: payload("content") }),
        ("", Did::MessageWithdrawn { message }),
        ("", Did::TriggerFailed { message, trigger: id(5), code: code(), error: payload("error") }),
        ("", Did::FileAttempted { message, number: 0, integration, secrets_version: 2 }),
        ("", taken),
        ("", Did::FileRefused { message, number: 1, code: code(), error: payload("error") }),
        ("", Did::MessageHandled { message, executions: vec![id(4), id(6)] }),
        ("none", Did::MessageHandled { message, executions: vec![] }),
        ("", Did::ExecutionUnanswered { execution: id(4) }),
        ("", Did::ReplyQueued(answer)),
        ("bare", Did::ReplyQueued(bare)),
        ("", attempted(Some(id(4)))),
        ("bare", attempted(None)),
        ("", failed),
        ("", Did::ReplyDelivered { reply, attempt: 2, receipt: payload("receipt") }),
        ("", Did::ReplyGivenUp { reply, attempt: 15, code: code(), error: payload("error") }),
    ]
}

fn delivery() -> Vec<(&'static str, DeliveryEvent)> {
    let error = payload("error");
    let received = Receipt {
        trigger: id(1),
        agent: id(2),
        verify: "github".to_owned(),
        size: 12,
        content_hash: Digest::new([0xab; 32]),
        content: payload("content"),
    };
    vec![
        ("", DeliveryEvent::Received(received)),
        ("", DeliveryEvent::Started { execution: id(3) }),
        ("", DeliveryEvent::Filtered {}),
        ("", DeliveryEvent::Failed { code: "input_invalid".to_owned(), error }),
    ]
}

fn file() -> Vec<(&'static str, FileEvent)> {
    let uploaded = |text: Option<&str>, tags: &[&str]| FileEvent::Uploaded {
        knowledge_base: id(7),
        name: FileName::parse("über tea.md").unwrap(),
        media_type: "text/markdown".to_owned(),
        size: 12,
        blob: BlobRef { name: "cd".repeat(32), size: 12 },
        source: text.map(str::to_owned),
        subject: text.map(str::to_owned),
        language: text.map(|_| "en".to_owned()),
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
    };
    vec![
        ("", uploaded(Some("wiki"), &["drinks", "green"])),
        ("bare", uploaded(None, &[])),
        ("", FileEvent::IngestionStarted { worker: id(9), fence: 1, lease_until: at(60) }),
        ("", FileEvent::IngestionProgressed { fence: 1, percent: 50 }),
        (
            "",
            FileEvent::Indexed {
                fence: 1,
                artifact: "0123.1.abcd".to_owned(),
                chunks: 3,
                characters: 2_048,
                tokens: 512,
                model_revision: "ef".repeat(32),
            },
        ),
        (
            "",
            FileEvent::Failed {
                fence: 1,
                code: "not_utf8".to_owned(),
                message: "the file is not UTF-8: save it as UTF-8 and upload it again".to_owned(),
            },
        ),
        (
            "",
            FileEvent::Embedded {
                artifact: "0123.1.cdef".to_owned(),
                chunks: 4,
                characters: 2_048,
                tokens: 530,
                model_revision: "0f".repeat(32),
            },
        ),
        (
            "",
            FileEvent::EmbeddingFailed {
                model_revision: "0f".repeat(32),
                code: "too_long_to_read".to_owned(),
                message: "reading it took too long: split it into smaller files".to_owned(),
            },
        ),
        ("", FileEvent::Deleted {}),
        ("", FileEvent::ErasureRequested {}),
        ("", FileEvent::Erased {}),
    ]
}

fn generation() -> Vec<(&'static str, GenerationEvent)> {
    let begun = EmbeddingModel { model: "e5-small".to_owned(), model_revision: "0f".repeat(32) };
    vec![
        ("", GenerationEvent::Begun(begun)),
        ("", GenerationEvent::Completed { files: 2, chunks: 7 }),
        ("", GenerationEvent::Activated {}),
        ("", GenerationEvent::Removed {}),
        ("", GenerationEvent::Cleared {}),
    ]
}

fn instance() -> Vec<(&'static str, InstanceEvent)> {
    let added = |purpose| InstanceEvent::KeyAdded {
        purpose,
        key_id: "key-1".to_owned(),
        algorithm: KeyAlgorithm::EdDsa,
        public_key: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo".to_owned(),
        private_key: sealed("private"),
    };
    vec![("", added(KeyPurpose::Sessions)), ("checkpoints", added(KeyPurpose::Checkpoints))]
}

fn integration() -> Vec<(&'static str, IntegrationEvent)> {
    let under_its_key = |text: &str| Sealed(format!("s1.integration-{}.{text}", id(8)));
    let secrets = |names: &[&str]| -> BTreeMap<String, Sealed> {
        names.iter().map(|name| ((*name).to_owned(), under_its_key(name))).collect()
    };
    let created = |kind, names: &[&str]| IntegrationEvent::Created {
        kind,
        title: name("Our tools"),
        key: format!("integration-{}", id(8)),
        config: under_its_key("config"),
        secrets: secrets(names),
    };
    let changed = |names: &[&str], removed: &[&str]| IntegrationEvent::SecretsChanged {
        secrets: secrets(names),
        removed: removed.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>(),
        secrets_version: 2,
    };
    vec![
        ("", created(IntegrationKind::Github, &["token"])),
        ("gitlab", created(IntegrationKind::Gitlab, &["token"])),
        ("slack", created(IntegrationKind::Slack, &["bot_token", "signing_secret"])),
        ("google_chat", created(IntegrationKind::GoogleChat, &["webhook_url"])),
        ("teams", created(IntegrationKind::Teams, &["app_password"])),
        ("smtp", created(IntegrationKind::Smtp, &[])),
        ("openai_compatible", created(IntegrationKind::OpenaiCompatible, &["api_key"])),
        ("http", created(IntegrationKind::Http, &["token"])),
        ("", IntegrationEvent::Renamed { title: name("Their tools") }),
        ("", IntegrationEvent::Configured { config: under_its_key("config") }),
        ("", changed(&["token"], &[])),
        ("removed", changed(&[], &["password"])),
        ("", IntegrationEvent::Enabled {}),
        ("", IntegrationEvent::Disabled {}),
        (
            "",
            IntegrationEvent::KeyRotated {
                key: format!("integration-{}", id(9)),
                config: Sealed(format!("s1.integration-{}.config", id(9))),
                secrets: secrets(&["token"]),
            },
        ),
        ("", IntegrationEvent::Deleted {}),
        ("", IntegrationEvent::Erased {}),
    ]
}

fn bulk_stop() -> Vec<(&'static str, BulkStopEvent)> {
    let executions = vec![id(5), id(6)];
    vec![
        ("", BulkStopEvent::Requested { agent: id(4), executions, more: true }),
        ("none", BulkStopEvent::Requested { agent: id(4), executions: vec![], more: false }),
        ("", BulkStopEvent::Finished { stopped: 2 }),
    ]
}

fn evaluation() -> Vec<(&'static str, EvaluationEvent)> {
    let summary = Summary {
        knowledge_base: id(4),
        mode: "hybrid".to_owned(),
        k: 10,
        questions: 76,
        files: 1_460,
        model: "all-MiniLM-L6-v2".to_owned(),
        model_revision: "53aa5117".to_owned(),
        chunker: "2".to_owned(),
        scores: Scores { ndcg: 0.4321, recall: 0.125, reciprocal_rank: 1.0 },
        latency: Latency { p50: 9_400, p99: 21_000, max: 30_500 },
    };
    vec![("", EvaluationEvent::Finished { summary, content: payload("questions") })]
}

fn integration_use() -> Vec<(&'static str, IntegrationUseEvent)> {
    let tested = |code: Option<&str>| IntegrationUseEvent::Tested {
        integration: id(8),
        secrets_version: 1,
        succeeded: code.is_none(),
        code: code.map(str::to_owned),
    };
    vec![
        (
            "",
            IntegrationUseEvent::Called {
                integration: id(8),
                secrets_version: 2,
                execution: id(1),
                step_id: "post[3]".to_owned(),
                operation: "create_issue".to_owned(),
            },
        ),
        ("", tested(None)),
        ("failed", tested(Some("unauthorized"))),
    ]
}

fn knowledge_base() -> Vec<(&'static str, KnowledgeBaseEvent)> {
    vec![
        (
            "",
            KnowledgeBaseEvent::Created {
                name: name("Handbook"),
                description: Some(description("How we work")),
                default: false,
            },
        ),
        (
            "default",
            KnowledgeBaseEvent::Created { name: name("Default"), description: None, default: true },
        ),
        (
            "",
            KnowledgeBaseEvent::Changed {
                name: Some(name("Manual")),
                description: Some(description("")),
            },
        ),
        ("bare", KnowledgeBaseEvent::Changed { name: None, description: None }),
        ("", KnowledgeBaseEvent::Described { description: Some(sealed("description")) }),
        ("none", KnowledgeBaseEvent::Described { description: None }),
        ("", KnowledgeBaseEvent::Deleted {}),
    ]
}

fn organization() -> Vec<(&'static str, OrganizationEvent)> {
    vec![("", OrganizationEvent::Created { name: name("Acme") })]
}

fn product() -> Vec<(&'static str, ProductEvent)> {
    let created = |description| ProductEvent::Created {
        name: name("Shop"),
        description,
        knowledge_base: id(7),
    };
    vec![
        ("", created(Some(description("Where we sell\nand buy")))),
        ("bare", created(None)),
        (
            "",
            ProductEvent::Changed {
                name: Some(name("Store")),
                description: Some(description("New")),
            },
        ),
        ("bare", ProductEvent::Changed { name: None, description: None }),
        ("", ProductEvent::Described { description: Some(sealed("description")) }),
        ("none", ProductEvent::Described { description: None }),
        ("", ProductEvent::RetentionSet { deleted_files_days: Some(30) }),
        ("none", ProductEvent::RetentionSet { deleted_files_days: None }),
        ("", ProductEvent::Deleted {}),
        ("", ProductEvent::Erased {}),
    ]
}

fn session() -> Vec<(&'static str, SessionEvent)> {
    let ended = |reason| SessionEvent::Ended { reason };
    vec![
        (
            "",
            SessionEvent::Started {
                user: id(1),
                refresh_hash: Digest::sha256("one"),
                expires_at: at(100),
            },
        ),
        (
            "",
            SessionEvent::StartedOutside {
                user: id(1),
                issuer: "https://issuer.example".to_owned(),
                expires_at: at(100),
            },
        ),
        ("", SessionEvent::Refreshed { refresh_hash: Digest::sha256("two"), expires_at: at(200) }),
        ("", ended(EndReason::Logout)),
        ("reuse", ended(EndReason::Reuse)),
        ("password_changed", ended(EndReason::PasswordChanged)),
        ("user_deleted", ended(EndReason::UserDeleted)),
        ("identity_unlinked", ended(EndReason::IdentityUnlinked)),
    ]
}

fn token_usage() -> Vec<(&'static str, TokenUsageEvent)> {
    let used = |address| TokenUse {
        method: "GET".to_owned(),
        route: "/api/agent-base/{id}".to_owned(),
        status: 200,
        count: 3,
        first_at: at(0),
        last_at: at(5),
        address,
    };
    vec![("", TokenUsageEvent::Recorded { uses: vec![used(Some(sealed("address"))), used(None)] })]
}

fn trigger() -> Vec<(&'static str, TriggerEvent)> {
    let created =
        |key: &str, kind, enabled, configuration: serde_json::Value| TriggerEvent::Created {
            agent: id(1),
            version_id: id(2),
            key: key.to_owned(),
            kind,
            enabled,
            configuration: configuration.as_object().cloned().unwrap(),
        };
    vec![
        ("", created("manual", TriggerKind::Manual, true, json!({}))),
        (
            "schedule",
            created("nightly", TriggerKind::Schedule, false, json!({ "cron": "0 3 * * *" })),
        ),
        ("webhook", created("push", TriggerKind::Webhook, true, json!({ "path": "acme/push" }))),
        ("message", created("chat", TriggerKind::Message, true, json!({}))),
        ("event", created("follow", TriggerKind::Event, true, json!({ "match": { "n": 1 } }))),
        (
            "",
            TriggerEvent::Changed {
                configuration:
                    json!({ "cron": "*/5 * * * *", "input": { "n": { "cel": "1 + 1" } } })
                        .as_object()
                        .cloned()
                        .unwrap(),
            },
        ),
        ("", TriggerEvent::SecretSet { secret: sealed("secret"), previous_until: Some(at(60)) }),
        ("first", TriggerEvent::SecretSet { secret: sealed("secret"), previous_until: None }),
        ("", TriggerEvent::Enabled {}),
        ("", TriggerEvent::Disabled {}),
        ("", TriggerEvent::Deleted {}),
    ]
}

fn user() -> Vec<(&'static str, UserEvent)> {
    let created =
        |name, role, password| UserEvent::Created { email: sealed("email"), name, role, password };
    vec![
        ("", created(Some(sealed("name")), Role::Owner, Some(sealed("password")))),
        ("bare", created(None, Role::Viewer, None)),
        ("", UserEvent::Renamed { name: sealed("name") }),
        ("", UserEvent::EmailChanged { email: sealed("email") }),
        ("", UserEvent::RoleChanged { role: Role::Admin }),
        ("member", UserEvent::RoleChanged { role: Role::Member }),
        ("", UserEvent::PasswordChanged { password: sealed("password") }),
        (
            "",
            UserEvent::IdentityLinked {
                issuer: "https://issuer.example".to_owned(),
                subject: sealed("subject"),
            },
        ),
        ("", UserEvent::IdentityUnlinked { issuer: "https://issuer.example".to_owned() }),
        ("", UserEvent::Deleted {}),
        ("", UserEvent::Erased {}),
    ]
}

fn at(second: i64) -> Timestamp {
    chrono::DateTime::from_timestamp(1_795_449_600 + second, 123_456_000).unwrap().into()
}

fn id(number: u8) -> Uuid {
    Uuid::from_bytes([number; 16])
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn description(text: &str) -> Description {
    Description::parse(text).unwrap()
}

fn sealed(text: &str) -> Sealed {
    Sealed(format!("s1.product-{}.{text}", id(2)))
}

fn payload(text: &str) -> Payload {
    Payload::Sealed(sealed(text))
}
