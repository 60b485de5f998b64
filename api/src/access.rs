//! Who may do what: the matrix of roles and scopes, written once.
//!
//! The rule of this file: a route names what it asks of its caller in the OpenAPI document, as
//! `x-access`, and everything that decides on a [`Right`] stands in one table. `docs/access.md` shows
//! the table, and a test compares the two.

use domain::{Role, Scope};
use serde::{Deserialize, Serialize};

/// What a route asks of its caller; written as its name, or as that of its right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Nothing, not even a credential.
    Everybody,
    /// A user's session, whatever the user may do.
    Session,
    /// An API token, whatever it may do.
    ApiToken,
    /// A right.
    #[serde(untagged)]
    Has(Right),
}

/// What a caller may be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Right {
    /// See products.
    ReadProducts,
    /// Make, change and delete products.
    WriteProducts,
    /// See agents and their triggers.
    ReadAgents,
    /// Install, change and uninstall agents.
    WriteAgents,
    /// See executions.
    ReadExecutions,
    /// Execute agents, stop executions.
    Execute,
    /// See and search knowledge bases.
    ReadKnowledge,
    /// Change knowledge bases and their files.
    WriteKnowledge,
    /// Ask the assistant, which answers from all knowledge bases of a product.
    Chat,
    /// See integrations, their secrets masked.
    ReadIntegrations,
    /// Make, change, test and delete integrations.
    WriteIntegrations,
    /// See the audit log.
    ReadAudit,
    /// See the log of events.
    ReadEvents,
    /// See API tokens.
    ReadTokens,
    /// Make, change and revoke API tokens.
    WriteTokens,
    /// See users.
    ReadUsers,
    /// Make, change and delete users.
    WriteUsers,
    /// See the read models and the generations of embeddings.
    ReadProjections,
    /// Rebuild the read models, begin, activate and remove generations of embeddings.
    RebuildProjections,
}

/// One row of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The least role that a user needs.
    pub role: Role,
    /// The scope that an API token needs; where there is none, no token may.
    pub scope: Option<Scope>,
}

impl Right {
    /// Every right, in the order of the documentation.
    pub const ALL: [Right; 19] = [
        Right::ReadProducts,
        Right::WriteProducts,
        Right::ReadAgents,
        Right::WriteAgents,
        Right::ReadExecutions,
        Right::Execute,
        Right::ReadKnowledge,
        Right::WriteKnowledge,
        Right::Chat,
        Right::ReadIntegrations,
        Right::WriteIntegrations,
        Right::ReadAudit,
        Right::ReadEvents,
        Right::ReadTokens,
        Right::WriteTokens,
        Right::ReadUsers,
        Right::WriteUsers,
        Right::ReadProjections,
        Right::RebuildProjections,
    ];

    /// Who has it.
    pub fn rule(self) -> Rule {
        let rule = |role, scope| Rule { role, scope };
        match self {
            Right::ReadProducts => rule(Role::Viewer, Some(Scope::ProductsRead)),
            Right::WriteProducts => rule(Role::Admin, None),
            Right::ReadAgents => rule(Role::Viewer, Some(Scope::AgentsRead)),
            Right::WriteAgents => rule(Role::Member, Some(Scope::AgentsWrite)),
            Right::ReadExecutions => rule(Role::Viewer, Some(Scope::ExecutionsRead)),
            Right::Execute => rule(Role::Member, Some(Scope::ExecutionsWrite)),
            Right::ReadKnowledge => rule(Role::Viewer, Some(Scope::KnowledgeRead)),
            Right::WriteKnowledge => rule(Role::Member, Some(Scope::KnowledgeWrite)),
            Right::Chat => rule(Role::Viewer, Some(Scope::AssistantChat)),
            Right::ReadIntegrations => rule(Role::Viewer, Some(Scope::IntegrationsRead)),
            Right::WriteIntegrations => rule(Role::Member, Some(Scope::IntegrationsWrite)),
            Right::ReadAudit => rule(Role::Admin, Some(Scope::AuditRead)),
            Right::ReadEvents => rule(Role::Admin, Some(Scope::EventsRead)),
            Right::ReadTokens => rule(Role::Member, None),
            Right::WriteTokens => rule(Role::Admin, None),
            Right::ReadUsers | Right::WriteUsers => rule(Role::Admin, None),
            Right::ReadProjections | Right::RebuildProjections => rule(Role::Admin, None),
        }
    }
}
