//! HTTP doors: health and metrics. No unauthenticated action.
