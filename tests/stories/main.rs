//! User stories on the sandbox: Slack in, store and thread out. One binary; a module a story.

mod captures;
mod runs;
mod slack;
