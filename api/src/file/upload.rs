//! Uploads of files: a multipart body, never whole in memory.
//!
//! The rule of this file: nothing is stored of a request that is rejected. Bytes wait in a file
//! without a name until the whole body was read and found good, and its `Idempotency-Key` is not that
//! of another upload; then they go to the vault, and then events are appended, by which alone a file
//! exists.

use std::collections::BTreeSet;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use axum::extract::State;
use commands::{FileFacts, NewFile, Uploaded};
use domain::{BlobRef, FileName};
use futures::{Stream, TryStreamExt};
use projections::{file, product};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use vault::PutError;

use crate::access::Right;
use crate::app::App;
use crate::caller::{Caller, Circumstances, product_not_found};
use crate::failures::bad_value;
use crate::http::openapi::{IdempotencyKeyParam, WriteFailures};
use crate::http::reply::Envelope;
use crate::http::upload::{Part, Upload};
use crate::http::{FieldError, Problem, Query, Reply};
use crate::knowledge_base::visible;

/// The longest text of a field, in characters.
const TEXT: usize = 200;

/// Tags that one upload may have.
const TAGS: usize = 50;

/// The longest list of tags, in bytes.
const TAG_LIST: usize = 64 * 1024;

/// How many uploads write what comes, or read it again, at once: however many come, what they take of memory
/// between network and disk is bounded. Whoever is slow takes no turn while it is waited for.
static SPOOLING: Semaphore = Semaphore::const_new(16);

/// How many uploads are put into the vault at once: hashing and sealing take some hundred kilobytes each.
static STORING: Semaphore = Semaphore::const_new(8);

/// How much is read of the spool at once, in bytes.
const PIECE: u64 = 64 * 1024;

/// What is done with bytes that the knowledge base holds already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum OnDuplicate {
    /// They stay one file, and the answer says which.
    #[default]
    Refuse,
    /// They become another file.
    Keep,
}

/// How an upload is taken.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct UploadOptions {
    /// What is done with bytes that the knowledge base holds already; `refuse` by default.
    on_duplicate: Option<OnDuplicate>,
}

/// The fields of an upload, in any order; `tags` may be repeated.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only documents what `Form` reads")]
pub(super) struct UploadForm {
    /// The files; their names end in what they are, as `.md`.
    #[schema(value_type = Vec<String>, format = Binary)]
    file: Vec<Vec<u8>>,
    /// The knowledge base that the files come into.
    knowledge_base_id: Option<Uuid>,
    /// The product whose default knowledge base the files come into. An API token that names neither
    /// this nor a knowledge base means its own product.
    product_id: Option<Uuid>,
    /// Where the files come from.
    #[schema(max_length = 200)]
    source: Option<String>,
    /// What they are about.
    #[schema(max_length = 200)]
    subject: Option<String>,
    /// Their language.
    #[schema(max_length = 200)]
    language: Option<String>,
    /// Words to find them by: separated by commas, or a JSON list.
    tags: Option<String>,
}

/// What became of one file of an upload.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UploadedFile {
    /// The file that holds the bytes.
    id: Uuid,
    /// The name that it was sent under.
    file_name: String,
    /// `processing` for a new file; what an older one is by now.
    status: String,
    /// The file that held these very bytes already: nothing new was stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    duplicate_of: Option<Uuid>,
}

/// Upload files
///
/// Answers as soon as the bytes are safe; reading, chunking and embedding follow. The same bytes
/// twice in one knowledge base are one file: 409 if all of the upload were there already.
#[utoipa::path(post, path = "/api/knowledge-base/storage/upload", tag = "Knowledge base",
    extensions(("x-access" = json!(Right::WriteKnowledge))),
    params(UploadOptions, IdempotencyKeyParam),
    request_body(content = UploadForm, content_type = "multipart/form-data"),
    responses((status = 202, description = "The files are taken, and are being read",
               body = Envelope<Vec<UploadedFile>>), WriteFailures))]
pub(super) async fn upload_files(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Query(options): Query<UploadOptions>,
    mut upload: Upload,
) -> Result<Reply<Vec<UploadedFile>>, Problem> {
    let mut form = Form { product: caller.bound_product(), ..Form::default() };
    while let Some(part) = upload.next_part().await? {
        form.take(&app, &caller, part).await?;
    }
    let (product, base) = form.target(&app, &caller)?;
    let mut ask = circumstances.ask(&app, &caller, Some(product), &[]).await?;
    // Nothing is there yet that a state could be meant of.
    ask.if_match = None;
    if app.commands.knows_upload(&ask).await? {
        // The key was used before: the bytes are read once more than usual, so that another upload
        // under it is refused before one of them is stored.
        let files = form.named_files(&app, product).await?;
        ask.request_hash =
            circumstances.request_hash(&app, &[&digest_of(base, &form.facts, &files)]);
        app.commands.check_upload(&ask).await?;
    }
    let files = form.stored_files(&app, product).await?;
    ask.request_hash = circumstances.request_hash(&app, &[&digest_of(base, &form.facts, &files)]);
    let names: Vec<String> = files.iter().map(|file| file.name.to_string()).collect();
    let keep = options.on_duplicate == Some(OnDuplicate::Keep);
    let uploaded = app.commands.upload_files(base, files, &form.facts, keep, &ask).await?;
    let newest =
        uploaded.iter().filter_map(|file| file.done.as_ref()).max_by_key(|done| done.position());
    let Some(newest) = newest else { return Err(all_duplicates(&names, &uploaded)) };
    let position = app.applied(newest).await?;

    let count = uploaded.iter().filter(|file| file.done.is_some()).count();
    let message = if count == 1 {
        "1 file is being read".into()
    } else {
        format!("{count} files are being read")
    };
    let files = names.into_iter().zip(&uploaded).map(|(name, file)| answer(&app, name, file));
    let files = files.collect::<Result<_, _>>()?;
    Ok(Reply::accepted(message, files).position(position).replayed(newest.replayed))
}

fn answer(app: &App, file_name: String, uploaded: &Uploaded) -> Result<UploadedFile, Problem> {
    let id = uploaded.id;
    let status = match uploaded.done {
        Some(_) => None,
        None => {
            let indexed = app.search.position();
            app.read(|db| file::get(db, id))?.map(|file| file.as_of_index(indexed.0).status)
        }
    };
    let duplicate_of = uploaded.done.is_none().then_some(id);
    Ok(UploadedFile {
        id,
        file_name,
        status: status.unwrap_or_else(|| "processing".into()),
        duplicate_of,
    })
}

fn all_duplicates(names: &[String], uploaded: &[Uploaded]) -> Problem {
    let faults = names.iter().zip(uploaded).enumerate().map(|(number, (name, file))| {
        let message = format!("{name} is the file {} already", file.id);
        FieldError::new(format!("/file/{number}"), "file_duplicate", message)
    });
    Problem::conflict(
        "file_duplicate",
        "the knowledge base holds these very bytes already, errors says in which files: use those, or send \
         on_duplicate=keep to keep both",
    )
    .with_errors(faults)
}

/// What an upload says: the same bytes under the same names, with the same words, are the same.
fn digest_of(base: Uuid, facts: &FileFacts, files: &[NewFile]) -> Vec<u8> {
    let FileFacts { source, subject, language, tags } = facts;
    let files: Vec<_> =
        files.iter().map(|file| (&file.name, &file.media_type, &file.blob.name)).collect();
    serde_json::to_vec(&(base, source, subject, language, tags, files))
        .expect("texts and lists of texts")
}

/// What was read of an upload so far.
#[derive(Default)]
struct Form {
    /// The product, as soon as it is known.
    product: Option<Uuid>,
    /// The knowledge base, if it was named.
    base: Option<Uuid>,
    /// The fields that came, for those that may come once.
    seen: BTreeSet<String>,
    facts: FileFacts,
    files: Vec<Arrived>,
    spool: Option<Spool>,
}

/// A file that arrived.
struct Arrived {
    name: FileName,
    media_type: String,
    /// Where its bytes are in the spool.
    bytes: Range<u64>,
}

impl Form {
    async fn take(&mut self, app: &App, caller: &Caller, part: Part<'_>) -> Result<(), Problem> {
        let field = part.name().to_owned();
        if !matches!(field.as_str(), "file" | "tags") && !self.seen.insert(field.clone()) {
            return Err(bad_field(&field, "repeated", "may be given only once"));
        }
        match field.as_str() {
            "file" => self.take_file(app, part).await?,
            "knowledge_base_id" => {
                let base = visible(app, caller, id(part).await?)?;
                self.base = Some(base.id);
                self.belongs_to(base.product_id)?;
            }
            "product_id" => {
                let product = caller.product(app, id(part).await?)?;
                self.belongs_to(product.id)?;
            }
            "source" => self.facts.source = text(part).await?,
            "subject" => self.facts.subject = text(part).await?,
            "language" => self.facts.language = text(part).await?,
            "tags" => {
                for tag in tags(part).await? {
                    if !self.facts.tags.contains(&tag) {
                        self.facts.tags.push(tag);
                    }
                }
                if self.facts.tags.len() > TAGS {
                    return Err(bad_field("tags", "too_many", &format!("may be at most {TAGS}")));
                }
            }
            _ => {
                let message = "is unknown here; known are file, knowledge_base_id, product_id, source, subject, \
                               language and tags";
                return Err(bad_field(&field, "unknown", message));
            }
        }
        Ok(())
    }

    /// Remembers the product that a field leads to.
    fn belongs_to(&mut self, product: Uuid) -> Result<(), Problem> {
        match self.product.replace(product) {
            Some(other) if other != product => Err(bad_field(
                "knowledge_base_id",
                "mismatch",
                "must be a knowledge base of product_id",
            )),
            _ => Ok(()),
        }
    }

    async fn take_file(&mut self, app: &App, part: Part<'_>) -> Result<(), Problem> {
        if part.has_unreadable_file_name() {
            return Err(bad_field("file", "not_utf_8", "must have a file name in UTF-8"));
        }
        let Some(name) = part.file_name() else {
            return Err(bad_field(
                "file",
                "not_a_file",
                "must be sent as a file, with a file name",
            ));
        };
        let name = FileName::parse(name).map_err(|error| bad_value("file", &error))?;
        let media_type = match part.media_type() {
            Some(said) if said != commands::BYTES && said.len() <= TEXT => said.to_owned(),
            _ => commands::media_type_of(&name),
        };
        let spool = match &mut self.spool {
            Some(spool) => spool,
            none => none.insert(Spool::open(&app.spool).await?),
        };
        let bytes = spool.add(part.into_stream()).await?;
        self.files.push(Arrived { name, media_type, bytes });
        Ok(())
    }

    /// The product and the knowledge base that the files come into.
    fn target(&self, app: &App, caller: &Caller) -> Result<(Uuid, Uuid), Problem> {
        let Some(product) = self.product else {
            let message =
                "must be given in a user session, or product_id for the product's default one";
            return Err(bad_field("knowledge_base_id", "missing", message));
        };
        let base = match self.base {
            Some(base) => base,
            None => caller.product(app, product)?.default_knowledge_base_id,
        };
        Ok((product, base))
    }

    /// All files, as they would be in the vault.
    async fn named_files(&self, app: &App, product: Uuid) -> Result<Vec<NewFile>, Problem> {
        let Some(spool) = &self.spool else { return Ok(Vec::new()) };
        let _turn = STORING.acquire().await.map_err(|error| Problem::internal(&error))?;
        let mut files = Vec::with_capacity(self.files.len());
        for Arrived { name, media_type, bytes } in &self.files {
            let named = app.commands.vault().name_blob(product, spool.read(bytes.clone())).await;
            let blob = blob_of(app, product, named)?;
            files.push(NewFile { name: name.clone(), media_type: media_type.clone(), blob });
        }
        Ok(files)
    }

    /// All files, their bytes in the vault.
    async fn stored_files(&mut self, app: &App, product: Uuid) -> Result<Vec<NewFile>, Problem> {
        let Some(spool) = &self.spool else {
            return Err(bad_field("file", "missing", "must be there, once or more often"));
        };
        let _turn = STORING.acquire().await.map_err(|error| Problem::internal(&error))?;
        let mut files = Vec::with_capacity(self.files.len());
        for Arrived { name, media_type, bytes } in std::mem::take(&mut self.files) {
            let vault = app.commands.vault();
            let stored = vault.put_blob(product, spool.read(bytes), app.upload_limit).await;
            let blob = blob_of(app, product, stored)?;
            files.push(NewFile { name, media_type, blob });
        }
        Ok(files)
    }
}

/// What the vault says of bytes.
fn blob_of(
    app: &App,
    product: Uuid,
    outcome: Result<vault::BlobRef, PutError<std::io::Error>>,
) -> Result<BlobRef, Problem> {
    match outcome {
        Ok(blob) => Ok(BlobRef { name: blob.name, size: blob.size }),
        Err(PutError::TooLarge { limit }) => {
            Err(Problem::too_large(usize::try_from(limit).unwrap_or(usize::MAX)))
        }
        Err(PutError::Body(error)) => Err(spool_failure(error)),
        // The product was deleted in the meantime, and its key with it.
        Err(PutError::Vault(vault::Error::KeyMissing { .. }))
            if app.read(|db| product::get(db, product))?.is_none() =>
        {
            Err(product_not_found())
        }
        Err(PutError::Vault(error)) => Err(error.into()),
    }
}

/// Bytes that wait until it is known that they are wanted, and whose they are: one file without a name,
/// gone with the request. It is no longer than the body, and so no longer than an upload may be.
struct Spool {
    file: Arc<File>,
    length: u64,
}

impl Spool {
    async fn open(folder: &Path) -> Result<Spool, Problem> {
        let folder = folder.to_owned();
        let file = in_turn(&SPOOLING, move || tempfile::tempfile_in(folder)).await;
        Ok(Spool { file: Arc::new(file.map_err(spool_failure)?), length: 0 })
    }

    async fn add(
        &mut self,
        bytes: impl Stream<Item = Result<bytes::Bytes, Problem>>,
    ) -> Result<Range<u64>, Problem> {
        let mut bytes = std::pin::pin!(bytes);
        let start = self.length;
        while let Some(chunk) = bytes.try_next().await? {
            let (file, end) = (self.file.clone(), self.length);
            self.length += chunk.len() as u64;
            let written = in_turn(&SPOOLING, move || file.write_all_at(&chunk, end)).await;
            written.map_err(spool_failure)?;
        }
        Ok(start..self.length)
    }

    fn read(&self, range: Range<u64>) -> impl Stream<Item = std::io::Result<bytes::Bytes>> + use<> {
        futures::stream::try_unfold((self.file.clone(), range), async |(file, range)| {
            let length = (range.end - range.start).min(PIECE);
            if length == 0 {
                return Ok(None);
            }
            let (read, at) = (file.clone(), range.start);
            let bytes = in_turn(&SPOOLING, move || {
                let mut bytes = vec![0; length as usize];
                read.read_exact_at(&mut bytes, at).map(|()| bytes)
            });
            Ok(Some((bytes.await?.into(), (file, at + length..range.end))))
        })
    }
}

/// Does something with a file, on a thread for that: no more of them at once than there are turns, since each
/// thread costs memory of its own.
async fn in_turn<T: Send + 'static>(
    turns: &'static Semaphore,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    let _turn = turns.acquire().await.map_err(std::io::Error::other)?;
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?
}

fn spool_failure(error: std::io::Error) -> Problem {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            vault::Error::DiskFull.into()
        }
        _ => Problem::internal(&error),
    }
}

async fn id(part: Part<'_>) -> Result<Uuid, Problem> {
    let field = part.name().to_owned();
    let text = part.text(TEXT).await?;
    text.trim().parse().map_err(|_| bad_field(&field, "invalid", "must be the id of one, a UUID"))
}

/// A short text; nothing where it is empty.
async fn text(part: Part<'_>) -> Result<Option<String>, Problem> {
    let field = part.name().to_owned();
    let text = part.text(TEXT * 4).await?;
    short(&field, &text).map(|text| Some(text).filter(|text| !text.is_empty()))
}

fn short(field: &str, text: &str) -> Result<String, Problem> {
    let text = text.trim();
    if text.chars().count() > TEXT {
        return Err(bad_field(field, "too_long", &format!("may have at most {TEXT} characters")));
    }
    if text.chars().any(char::is_control) {
        return Err(bad_field(field, "not_printable", "must be one line of text"));
    }
    Ok(text.to_owned())
}

/// Tags, separated by commas or as a JSON list.
async fn tags(part: Part<'_>) -> Result<Vec<String>, Problem> {
    let text = part.text(TAG_LIST).await?;
    let tags: Vec<String> = match text.trim_start().starts_with('[') {
        false => text.split(',').map(str::to_owned).collect(),
        true => serde_json::from_str(&text).map_err(|_| {
            bad_field(
                "tags",
                "invalid",
                "must be words separated by commas, or a JSON list of texts",
            )
        })?,
    };
    let tags = tags.iter().map(|tag| short("tags", tag));
    tags.filter(|tag| !tag.as_ref().is_ok_and(String::is_empty)).collect()
}

fn bad_field(field: &str, code: &'static str, message: &str) -> Problem {
    Problem::invalid("invalid_field", format!("the field {field} is not valid: it {message}"))
        .with_error(FieldError::new(format!("/{field}"), code, message))
}
