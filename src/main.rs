//! The `weir` command.

#![allow(clippy::print_stdout, reason = "a command answers on standard output")]

use std::process::ExitCode;

use weir::config::{self, Request};
use weir::serve;

fn main() -> ExitCode {
    let config = match config::read(std::env::args_os()) {
        Ok(Request::Serve(config)) => *config,
        Ok(Request::Print(config)) => {
            println!("{config:#?}");
            return ExitCode::SUCCESS;
        }
        Err(error) => error.exit(),
    };
    serve::log::init(&config.log);
    match serve::run(config) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("weir: {error:#}");
            ExitCode::FAILURE
        }
    }
}
