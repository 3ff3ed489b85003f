//! Completion scripts and man pages, both made from the command line's definition.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;
use serde_json::json;

use super::cli::{Cli, EXIT_STATUS};
use super::error::CtlError;
use super::output::Report;

/// The script for one shell.
pub(crate) fn completions(shell: Shell) -> Result<Report, CtlError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
    let script =
        String::from_utf8(script).map_err(|_| CtlError::Unexpected("the completion script is not UTF-8".to_owned()))?;
    let json = json!({ "shell": shell.to_string(), "script": script });
    Ok(Report::new(script, json))
}

/// `signerctl.1` and one page for every command below it.
pub(crate) fn man_pages(directory: &Path) -> Result<Report, CtlError> {
    fs::create_dir_all(directory).map_err(|error| CtlError::write(directory, error))?;
    let mut command = Cli::command();
    command.build();
    let mut pages = Vec::new();
    write_pages(&command, directory, &mut pages)?;
    let json = json!({ "pages": pages });
    Ok(Report::new(pages.join("\n") + "\n", json))
}

fn write_pages(command: &Command, directory: &Path, pages: &mut Vec<String>) -> Result<(), CtlError> {
    let man = Man::new(command.clone());
    let path = directory.join(man.get_filename());
    let page = render(command, &man).map_err(|error| CtlError::write(&path, error))?;
    fs::write(&path, page).map_err(|error| CtlError::write(&path, error))?;
    pages.push(path.display().to_string());
    command.get_subcommands().try_for_each(|below| write_pages(below, directory, pages))
}

/// As `Man::render`, with the exit codes as a table in a section of the name that man(7) has for them.
fn render(command: &Command, man: &Man) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    // `Man::render_title` loses the empty date, and everything behind it moves up one place.
    let name = man.get_filename();
    let name = name.trim_end_matches(".1");
    writeln!(page, ".TH {name} 1 \"\" \"{NAME} {}\" \"StellaOps Signer\"", env!("CARGO_PKG_VERSION"))?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    writeln!(page, ".SH \"EXIT STATUS\"")?;
    for line in EXIT_STATUS.lines().skip(1) {
        let (code, meaning) = line.trim_start().split_once(' ').unwrap_or((line, ""));
        writeln!(page, ".TP\n.B {code}\n{}", meaning.trim_start())?;
    }
    if name != NAME {
        writeln!(page, ".SH \"SEE ALSO\"\n.BR {NAME} (1)")?;
    }
    Ok(page)
}

const NAME: &str = "signerctl";
