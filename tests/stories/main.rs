//! User stories on the sandbox: Slack in, store and thread out. One binary; a module a story.

mod asking;
mod bad_input;
mod captures;
mod evidence;
mod faults;
mod permission;
mod product;
mod runs;
mod slack;
