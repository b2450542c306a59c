//! Who may run what: the cluster's own RBAC decides. Owns principals and access reviews; never decides from names or handles.

pub mod principal;

pub use principal::{ChannelFacts, Directory, DirectoryError, PersonFacts};
