//! The `weir` command.

#![allow(clippy::print_stdout, reason = "a command answers on standard output")]

use std::process::ExitCode;

use weir::config::{self, Request};
use weir::serve::{self, keys, usage};

fn main() -> ExitCode {
    let config = match config::read(std::env::args_os()) {
        Ok(Request::Serve(config)) => *config,
        Ok(Request::Print(config)) => {
            println!("{config:#?}");
            return ExitCode::SUCCESS;
        }
        Ok(Request::Keys(request)) => return exit_code(keys::run(*request).map(|()| 0)),
        Ok(Request::Usage(request)) => return exit_code(usage::run(&request).map(|()| 0)),
        Err(error) => error.exit(),
    };
    serve::log::init(&config.log);
    exit_code(serve::run(config))
}

fn exit_code(outcome: anyhow::Result<u8>) -> ExitCode {
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("weir: {error:#}");
            ExitCode::FAILURE
        }
    }
}
