//! The command line.
//!
//! Arguments in, options out; touches no kernel.

use std::path::PathBuf;

use clap::Parser;

/// Runs commands as Gearman workers: starts, counts, limits, drains and restarts them
#[derive(Clone, Debug, Parser)]
#[command(name = "ringgear-manager", version)]
pub struct Options {
    /// What to run: a TOML file
    #[arg(long, value_name = "FILE", required_unless_present_any = ["guard", "generate"])]
    pub config_file: Option<PathBuf>,

    /// Check the file, and do nothing else
    #[arg(long, conflicts_with = "dry_run")]
    pub check: bool,

    /// Print what would run, and do nothing else
    #[arg(long)]
    pub dry_run: bool,

    /// Write the manual page and completions to a folder
    #[arg(long, value_name = "DIR", hide = true)]
    pub generate: Option<PathBuf>,

    /// Be the process that ends the groups of a killed manager
    #[arg(long, hide = true, exclusive = true)]
    pub guard: bool,
}
