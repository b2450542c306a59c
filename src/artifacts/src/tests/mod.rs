//! The client against the real server, over sockets, in one process.

mod archive;
mod attacks;
mod fixture;
mod link;
mod server;
mod upload;
