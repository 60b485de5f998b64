//! GitHub and GitLab.

use domain::integration::IntegrationKind;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::client::{Request, host, next_page};
use super::{Arguments, Connectors, object, secret, told};
use crate::OpenIntegration;
use crate::policies::ToolError;

/// The version of GitHub's REST API that is spoken.
const GITHUB_VERSION: &str = "2022-11-28";

impl Connectors {
    /// A request to the API, with the token.
    fn code_request(
        &self,
        integration: &OpenIntegration,
        method: Method,
        path: &[&str],
    ) -> Result<Request, ToolError> {
        let token = secret(integration, "token")?;
        let api = self.api(integration);
        Ok(match integration.kind {
            IntegrationKind::Gitlab => {
                let path = [&["api", "v4"], path].concat();
                Request::new(method, api.url("base_url", &path)?).header("private-token", token)
            }
            _ => Request::new(method, api.url("base_url", path)?)
                .header("authorization", format!("Bearer {token}"))
                .header("accept", "application/vnd.github+json")
                .header("x-github-api-version", GITHUB_VERSION),
        })
    }

    pub(super) async fn test_code(
        &self,
        integration: &OpenIntegration,
    ) -> Result<String, ToolError> {
        let api = self.api(integration);
        let request = self.code_request(integration, Method::GET, &["user"])?;
        let answer = api.send(&request).await?;
        // An app's token is nobody: it is good all the same if the limits are told.
        let is_app =
            integration.kind == IntegrationKind::Github && answer.status == StatusCode::FORBIDDEN;
        if is_app {
            let request = self.code_request(integration, Method::GET, &["rate_limit"])?;
            api.ask(&request).await?;
            return Ok(format!("{} takes the token, which is an app's", host(&request.url)));
        }
        if !answer.status.is_success() {
            return Err(api.refused(&request, &answer));
        }
        let field = if integration.kind == IntegrationKind::Gitlab { "username" } else { "login" };
        match answer.body[field].as_str() {
            Some(user) => Ok(format!("{} takes the token, as {user}", host(&request.url))),
            None => Err(not_spoken(&request, "its answer names no user")),
        }
    }
}

/// What a page of a list holds.
const PAGE: u64 = 100;

impl Connectors {
    pub(super) async fn call_code(
        &self,
        integration: &OpenIntegration,
        operation: &str,
        told: Arguments<'_>,
    ) -> Result<Value, ToolError> {
        let place = Place::of(integration, told.text("repository"))?;
        match operation {
            "create_issue" => self.create_issue(integration, &place, told).await,
            "comment" => self.comment(integration, &place, told).await,
            "list_commits" => self.list_commits(integration, &place, told).await,
            _ => self.open_pull_request(integration, &place, told).await,
        }
    }

    async fn post(
        &self,
        integration: &OpenIntegration,
        place: &Place,
        path: &[&str],
        body: Value,
    ) -> Result<Value, ToolError> {
        let path = place.path(path);
        let request = self.code_request(integration, Method::POST, &path)?.json(body);
        Ok(self.api(integration).ask(&request).await?.body)
    }

    async fn create_issue(
        &self,
        integration: &OpenIntegration,
        place: &Place,
        told: Arguments<'_>,
    ) -> Result<Value, ToolError> {
        let labels = told.texts("labels");
        let labels = (!labels.is_empty()).then_some(labels);
        let (title, body) = (told.text("title"), told.text("body"));
        let body = match place {
            Place::Github { .. } => object([
                ("title", title.map(Value::from)),
                ("body", body.map(Value::from)),
                ("labels", labels.map(Value::from)),
            ]),
            Place::Gitlab(_) => object([
                ("title", title.map(Value::from)),
                ("description", body.map(Value::from)),
                ("labels", labels.map(|labels| labels.join(",").into())),
            ]),
        };
        let made = self.post(integration, place, &["issues"], body).await?;
        Ok(place.thing(&made))
    }

    async fn comment(
        &self,
        integration: &OpenIntegration,
        place: &Place,
        told: Arguments<'_>,
    ) -> Result<Value, ToolError> {
        let (kind, number) = match (told.number("issue"), told.number("pull_request"), place) {
            (Some(number), None, _) => ("issues", number),
            // At GitHub a pull request is an issue where it comes to comments.
            (None, Some(number), Place::Github { .. }) => ("issues", number),
            (None, Some(number), Place::Gitlab(_)) => ("merge_requests", number),
            _ => {
                let message = "`comment` needs either `issue` or `pull_request`, the number of one";
                return Err(ToolError::lasting("with_invalid", message));
            }
        };
        let number = number.to_string();
        let kept_at = match place {
            Place::Github { .. } => "comments",
            Place::Gitlab(_) => "notes",
        };
        let body = object([("body", told.text("body").map(Value::from))]);
        let made = self.post(integration, place, &[kind, &number, kept_at], body).await?;
        Ok(object([("id", made.get("id").cloned()), ("url", made.get("html_url").cloned())]))
    }

    async fn open_pull_request(
        &self,
        integration: &OpenIntegration,
        place: &Place,
        told: Arguments<'_>,
    ) -> Result<Value, ToolError> {
        let text = |name: &str| told.text(name).map(Value::from);
        let (kind, body) = match place {
            Place::Github { .. } => (
                "pulls",
                object([
                    ("title", text("title")),
                    ("head", text("head")),
                    ("base", text("base")),
                    ("body", text("body")),
                ]),
            ),
            Place::Gitlab(_) => (
                "merge_requests",
                object([
                    ("title", text("title")),
                    ("source_branch", text("head")),
                    ("target_branch", text("base")),
                    ("description", text("body")),
                ]),
            ),
        };
        let made = self.post(integration, place, &[kind], body).await?;
        Ok(place.thing(&made))
    }

    /// The newest commits, as many pages of them as are wanted.
    async fn list_commits(
        &self,
        integration: &OpenIntegration,
        place: &Place,
        told: Arguments<'_>,
    ) -> Result<Value, ToolError> {
        let limit = told.number("limit").unwrap_or(30);
        let (path, name_of_ref) = match place {
            Place::Github { .. } => (place.path(&["commits"]), "sha"),
            Place::Gitlab(_) => (place.path(&["repository", "commits"]), "ref_name"),
        };
        let mut request = self.code_request(integration, Method::GET, &path)?;
        {
            let mut query = request.url.query_pairs_mut();
            query.append_pair("per_page", &limit.min(PAGE).to_string());
            let names =
                [(name_of_ref, "ref"), ("path", "path"), ("since", "since"), ("until", "until")];
            for (name, argument) in names {
                if let Some(value) = told.text(argument) {
                    query.append_pair(name, value);
                }
            }
        }
        let api = self.api(integration);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut commits = Vec::new();
        loop {
            let answer = api.ask(&request).await?;
            let Some(page) = answer.body.as_array() else {
                return Err(not_spoken(&request, "its answer is no list of commits"));
            };
            commits.extend(page.iter().map(|commit| place.commit(commit)));
            let next = next_page(&answer.headers, &request.url);
            match next.filter(|_| commits.len() < limit && !page.is_empty()) {
                Some(next) => request.url = next,
                None => break,
            }
        }
        commits.truncate(limit);
        Ok(json!({ "commits": commits }))
    }
}

/// A repository.
enum Place {
    Github {
        owner: String,
        name: String,
    },
    /// A project's path or number.
    Gitlab(String),
}

impl Place {
    /// The one that is named, or that of the configuration.
    fn of(integration: &OpenIntegration, named: Option<&str>) -> Result<Place, ToolError> {
        let missing = |message: &str| Err(ToolError::lasting("repository_missing", message));
        if integration.kind == IntegrationKind::Gitlab {
            return match named.or(told(integration, "project")) {
                Some(project) => Ok(Place::Gitlab(project.to_owned())),
                None => missing(
                    "name the `repository`, as group/project, or give the integration a project",
                ),
            };
        }
        let (owner, name) = match named.map(|named| named.split_once('/').ok_or(named)) {
            Some(Ok((owner, name))) => (Some(owner), Some(name)),
            Some(Err(name)) => (told(integration, "owner"), Some(name)),
            None => (told(integration, "owner"), told(integration, "repo")),
        };
        match (owner, name) {
            (Some(owner), Some(name)) => {
                Ok(Place::Github { owner: owner.to_owned(), name: name.to_owned() })
            }
            _ => missing(
                "name the `repository`, as owner/name, or give the integration an owner and a repo",
            ),
        }
    }

    fn path<'a>(&'a self, rest: &[&'a str]) -> Vec<&'a str> {
        let start = match self {
            Place::Github { owner, name } => vec!["repos", owner, name],
            Place::Gitlab(project) => vec!["projects", project],
        };
        [start, rest.to_vec()].concat()
    }

    /// An issue, a pull request or a merge request that was made.
    fn thing(&self, made: &Value) -> Value {
        let (number, url) = match self {
            Place::Github { .. } => ("number", "html_url"),
            Place::Gitlab(_) => ("iid", "web_url"),
        };
        object([
            ("number", made.get(number).cloned()),
            ("url", made.get(url).cloned()),
            ("id", made.get("id").cloned()),
        ])
    }

    fn commit(&self, commit: &Value) -> Value {
        let at = |place: &str| commit.pointer(place).cloned();
        match self {
            Place::Github { .. } => object([
                ("sha", at("/sha")),
                ("message", at("/commit/message")),
                ("author", at("/commit/author/name")),
                ("at", at("/commit/author/date")),
                ("url", at("/html_url")),
            ]),
            Place::Gitlab(_) => object([
                ("sha", at("/id")),
                ("message", at("/message")),
                ("author", at("/author_name")),
                ("at", at("/authored_date")),
                ("url", at("/web_url")),
            ]),
        }
    }
}

/// Something else answers than what the kind says.
pub(super) fn not_spoken(request: &Request, what: &str) -> ToolError {
    let message = format!(
        "what answers at {} does not speak as it should, {what}: check base_url",
        host(&request.url)
    );
    ToolError::lasting("unexpected_answer", message)
}
