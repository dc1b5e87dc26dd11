//! The built binary as an operator runs it: its commands, its sockets, its signals, its log.
#![allow(clippy::disallowed_methods, reason = "what is measured here is the real process")]

mod access;
mod client;
mod commands;
mod drain;
mod leaks;
mod process;
mod readme;
mod reload;
