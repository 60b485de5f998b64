//! The demo: a sample workspace that is made through the same commands as any other.
//!
//! The rule of this file: asked for twice, it is made once; only the token is new at every start,
//! because a token is shown once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use commands::{Ask, FileFacts, NewAgent, NewApiToken, NewFile};
use domain::api_token::{ApiToken, TokenStatus};
use domain::{BlobRef, FileName, Name, Scope};
use eventlog::{Position, StreamId};
use indicatif::{ProgressBar, ProgressStyle};
use projections::{file, product};
use secrecy::ExposeSecret;
use uuid::Uuid;

use crate::app::App;

/// How long the demo waits for its documents to be indexed.
const PATIENCE: Duration = Duration::from_secs(120);

/// The documents of the demo.
const DOCUMENTS: [(&str, &str, &str); 3] = [
    ("onboarding.md", "text/markdown", include_str!("../demo/onboarding.md")),
    ("incidents.md", "text/markdown", include_str!("../demo/incidents.md")),
    ("holidays.csv", "text/csv", include_str!("../demo/holidays.csv")),
];

/// Makes the sample workspace and says how to use it.
///
/// # Errors
/// Log or vault fail.
pub async fn prepare(app: App, address: SocketAddr) -> anyhow::Result<()> {
    let organization = app.organization;
    let ask = |what: &str, product: Option<Uuid>| {
        Ask::system(
            "demo",
            organization,
            product,
            &[b"demo", organization.as_bytes(), what.as_bytes()],
        )
    };
    let name = |text: &str| Name::parse(text).map_err(|error| anyhow!(error));

    let made =
        app.commands.create_product(name("Acme handbook")?, None, &ask("product", None)).await?;
    let product_id = made.stream_id().context("a product has an id")?;
    shown(&app, &made).await?;
    let found = app.views.read(|db| product::get(db, product_id))?;
    let product = found.context("the demo's product was deleted: choose another --data-dir")?;

    for (file_name, media_type, text) in DOCUMENTS {
        let body = futures::stream::iter([Ok::<_, std::convert::Infallible>(Bytes::from_static(
            text.as_bytes(),
        ))]);
        let blob = app.commands.vault().put_blob(product_id, body, text.len() as u64).await?;
        let blob = BlobRef { name: blob.name, size: blob.size };
        let facts = FileFacts { source: Some("demo".into()), ..FileFacts::default() };
        let name = FileName::parse(file_name).map_err(|error| anyhow!(error))?;
        let ask = ask(file_name, Some(product_id));
        let base = product.default_knowledge_base_id;
        let file = NewFile { name, media_type: media_type.into(), blob };
        app.commands.upload_file(base, file, &facts, false, &ask).await?;
    }
    let manifest = domain::catalogue::find("prodgy.search", None)
        .context("the catalogue has prodgy.search")?;
    let agent = NewAgent {
        manifest: manifest.clone(),
        title: None,
        config: None,
        bindings: BTreeMap::new(),
    };
    let installed = app.commands.install_agent(agent, &ask("agent", Some(product_id))).await?;
    shown(&app, &installed).await?;
    let token = new_token(&app, product_id, ask).await?;
    let is_indexed = wait_for_documents(&app, product.default_knowledge_base_id).await?;

    let agent_id = installed.stream_id().context("an agent has an id")?;
    let triggers = app.views.read(|db| projections::trigger::of_agent(db, agent_id))?;
    let trigger = triggers.first().context("an agent has a manual trigger")?.id;
    tell(address, &token, trigger, is_indexed);
    Ok(())
}

async fn shown(app: &App, done: &commands::Done) -> anyhow::Result<()> {
    app.caught_up(done.position()).await.map_err(|problem| anyhow!("{problem}"))
}

/// The demo's token: new at the first start, with a new secret at every other, and another one where somebody has
/// revoked or deleted it.
async fn new_token(
    app: &App,
    product: Uuid,
    ask: impl Fn(&str, Option<Uuid>) -> Ask,
) -> anyhow::Result<String> {
    let mut what = "token".to_owned();
    let with_secret = loop {
        let ask = ask(&what, Some(product));
        let token = ask.new_id("api token");
        let (state, _) = app.commands.load::<ApiToken>(&StreamId::new("api_token", token)).await?;
        match state {
            ApiToken::Missing => {
                let new = NewApiToken {
                    name: Name::parse("Demo").map_err(|error| anyhow!(error))?,
                    scopes: Scope::ALL.into_iter().collect(),
                    allowed_ips: BTreeSet::new(),
                    expires_at: None,
                };
                break app.commands.create_api_token(new, &ask).await?;
            }
            ApiToken::Present(details) if details.status == TokenStatus::Active => {
                let ask = Ask::once("demo", app.organization, Some(product));
                break app.commands.regenerate_api_token(token, None, &ask).await?;
            }
            ApiToken::Present(_) | ApiToken::Deleted => what.push_str(" again"),
        }
    };
    shown(app, &with_secret.done).await?;
    let secret = with_secret.secret.context("a new token comes with its secret")?;
    Ok(secret.expose_secret().to_owned())
}

/// Waits until every document can be found: it is indexed, and the model is there that finds it. Answers whether that
/// came to be.
async fn wait_for_documents(app: &App, base: Uuid) -> anyhow::Result<bool> {
    let progress = ProgressBar::new(DOCUMENTS.len() as u64);
    progress
        .set_style(ProgressStyle::with_template("indexing the documents {bar:30} {pos}/{len}")?);
    let ready = async {
        loop {
            let position = app.search.position();
            let files = app.views.read(|db| {
                file::list(db, base, Some("ready"), position.0, projections::Window::first(50))
            })?;
            progress.set_position(files.items.len() as u64);
            if files.items.len() >= DOCUMENTS.len() {
                break;
            }
            app.search.reached(Position(position.0 + 1)).await;
        }
        app.embedder.clone().wait_for(Option::is_some).await?;
        Ok::<(), anyhow::Error>(())
    };
    let waited = tokio::time::timeout(PATIENCE, ready).await;
    progress.finish_and_clear();
    Ok(matches!(waited, Ok(Ok(()))))
}

#[expect(clippy::print_stdout, reason = "the demo talks to a person")]
fn tell(address: SocketAddr, token: &str, trigger: Uuid, is_indexed: bool) {
    let url = format!("http://{address}");
    if !is_indexed {
        println!(
            "The documents are not indexed yet: is the embedding model there? (scripts/fetch-model)\n"
        );
    }
    println!("A sample workspace is ready. API token, shown this once:\n\n  {token}\n");
    println!("Search its documents by meaning:\n");
    println!("  curl -s {url}/api/knowledge-base/embeddings -H 'X-API-Token: {token}' \\");
    println!(
        "    -H 'Content-Type: application/json' -d '{{\"query\": \"How fast can we undo a deployment?\", \"limit\": 1}}'\n"
    );
    println!("Ask the assistant, which answers from them while you watch:\n");
    println!("  curl -sN {url}/api/assistant/chat -H 'X-API-Token: {token}' \\");
    println!(
        "    -H 'Content-Type: application/json' -d '{{\"message\": \"How fast can we undo a deployment?\"}}'\n"
    );
    println!("Run the agent that is installed in it:\n");
    println!(
        "  curl -s '{url}/api/agent-base/triggers/{trigger}/execute?wait_seconds=10' -H 'X-API-Token: {token}' \\"
    );
    println!(
        "    -H 'Content-Type: application/json' -d '{{\"input\": {{\"query\": \"What happens on the first day?\"}}}}'\n"
    );
    println!("See who did what:\n");
    println!("  curl -s '{url}/api/audit-logs?limit=5' -H 'X-API-Token: {token}'\n");
    println!("Every route, to try in the browser: {url}/swagger\n");
}
