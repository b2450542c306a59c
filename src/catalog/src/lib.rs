//! The allowlist: which diagnostics exist and exactly what each may run.
//!
//! Owns the model of `commands/*.yaml` and `commands/runbooks/*.yaml`, its lint, the check of a person's parameters and the rendering to the agent's
//! canonical arguments and to an admission policy. Never does I/O but reading the folder.

pub mod diagnostic;
pub mod lint;
pub mod load;
pub mod parameter;
pub mod policy;
pub mod render;
pub mod runbook;

pub use diagnostic::{ArtifactSpec, Diagnostic, DiagnosticName, Identity, Impact, Method, Runtime, Sensitivity};
pub use load::{Catalog, CatalogError, Entry, Fault};
pub use parameter::{Parameter, ParameterError, ParameterKind};
pub use runbook::{ContainerState, PlannedStep, Runbook, RunbookStep, Targets};
