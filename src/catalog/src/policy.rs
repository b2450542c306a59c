//! Rendering the catalog to Kubernetes admission policies.
