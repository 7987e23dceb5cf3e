//! The command `kosmosg`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod command;

/// Pictures of the subjects in a prompt of words and pictures.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "\
Examples:
  kosmosg sprite --held-out --seed 7 -o creature.png
  kosmosg generate --prompt 'a <i> on the beach' --image creature.png -o beach.png
  kosmosg info models/tiny

Exit codes: 0 done; 1 it failed, or a comparison did; 2 the command line is wrong."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Generate(command::generate::Arguments),
    Encode(command::encode::Arguments),
    Sprite(command::sprite::Arguments),
    Info(command::info::Arguments),
    Import(command::import::Arguments),
    Quantize(command::quantize::Arguments),
    Synth(command::synth::Arguments),
    Verify(command::verify::Arguments),
    Train(command::train::Arguments),
    Eval(command::eval::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Generate(arguments) => arguments.run(),
        Command::Encode(arguments) => arguments.run(),
        Command::Sprite(arguments) => arguments.run(),
        Command::Info(arguments) => arguments.run(),
        Command::Import(arguments) => arguments.run(),
        Command::Quantize(arguments) => arguments.run(),
        Command::Synth(arguments) => arguments.run(),
        Command::Verify(arguments) => arguments.run(),
        Command::Train(arguments) => arguments.run(),
        Command::Eval(arguments) => arguments.run(),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
