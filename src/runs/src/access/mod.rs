//! Who may run what: the cluster's own RBAC decides. Owns principals and access reviews; never decides from names or handles.

pub mod own;
pub mod principal;
pub mod review;

pub use principal::{ChannelFacts, Directory, DirectoryError, IdentityError, PersonFacts, Principal};
pub use review::{Access, AccessConfig, AccessError, BY_WILDCARD, Question};
