//! What follows from which facts, row by row.

mod begin;
mod case;
mod end;
