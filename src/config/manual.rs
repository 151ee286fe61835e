//! The manual page and the completions of a program: its description by clap and sections of text
//! in, files out.
//!
//! Options stand under OPTIONS by their headings, as in the help. Hidden ones stand nowhere. Knows
//! no program of its own; `ringgeard` has the sections of the server.
//!
//! Invariant: the files depend on the program's version and options only, not on time or host.

mod ringgeard;

use std::io;
use std::path::Path;

use clap::builder::{PossibleValue, StyledStr};
use clap::{Arg, Command};
use clap_complete::{Generator as _, Shell};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

pub use self::ringgeard::ringgeard;
use crate::io::folder::{FolderError, write_files};

/// The section of the manual: programs for administrators.
const SECTION: &str = "8";
/// Shells that have completions.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// What the manual page of a program is made of.
#[derive(Clone, Debug)]
pub struct Manual<'a> {
    /// The program's name.
    pub name: &'static str,
    /// The program's options, and what it is in one line.
    pub command: Command,
    /// The program's version.
    pub version: &'static str,
    /// What follows the name in the synopsis, as in `[OPTIONS] [@FILE]`.
    pub usage: &'a str,
    /// Paragraphs of the description.
    pub description: &'a [&'a str],
    /// Sections behind the options, in this order.
    pub sections: &'a [Section<'a>],
}

/// A section of a manual page.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    /// Its heading, in capitals.
    pub title: &'a str,
    /// What stands there.
    pub parts: &'a [Part<'a>],
}

/// A part of a section.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// A paragraph.
    Text(&'a str),
    /// A term, such as a file or a signal, and what it means.
    Item(&'a str, &'a str),
}

/// Writes the manual page and the completions into the folder, which is made if there is none: for
/// a program `NAME` the files `NAME.8`, `NAME.bash`, `_NAME` and `NAME.fish`.
///
/// # Errors
/// The first file or folder that can't be written.
pub fn generate(manual: &Manual<'_>, folder: &Path) -> Result<(), FolderError> {
    let mut manual = manual.clone();
    // Adds the options that clap has by itself.
    manual.command.build();
    write_files(folder, &manual.files())
}

impl Manual<'_> {
    /// The names and the contents of the files.
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let name = self.name;
        let mut files = vec![(format!("{name}.{SECTION}"), self.page().into_bytes())];
        let visible: Vec<Arg> = self.visible().cloned().collect();
        for shell in SHELLS {
            let mut contents = Vec::new();
            let mut command = self.plain().args(visible.clone());
            clap_complete::generate(shell, &mut command, name, &mut contents);
            files.push((shell.file_name(name), contents));
        }
        files
    }

    /// The program without options, those that clap adds by itself included. One that prints the
    /// version needs it.
    fn plain(&self) -> Command {
        let plain = Command::new(self.name).version(self.version);
        plain.disable_help_flag(true).disable_version_flag(true)
    }

    /// Options that the help lists.
    fn visible(&self) -> impl Iterator<Item = &Arg> {
        self.command.get_arguments().filter(|option| !option.is_hide_set())
    }

    /// The manual page in roff.
    fn page(&self) -> String {
        let name = self.name;
        let about = self.command.get_about().map(ToString::to_string).unwrap_or_default();
        let man =
            Man::new(self.plain().about(about).override_usage(format!("{name} {}", self.usage)))
                .section(SECTION)
                // In the middle of the footer. A date would change from build to build.
                .date(self.version)
                .source("ringgear")
                .manual("System Administration");
        let mut page = text_of(|page| man.render_title(page));
        page.push_str(&body_of(|page| man.render_name_section(page)));
        page.push_str(&body_of(|page| man.render_synopsis_section(page)));
        let description: Vec<Part<'_>> = self.description.iter().copied().map(Part::Text).collect();
        page.push_str(&Section { title: "DESCRIPTION", parts: &description }.rendered());
        page.push_str(&self.options());
        for section in self.sections {
            page.push_str(&section.rendered());
        }
        page
    }

    /// The section OPTIONS, with a subsection for each heading of the help.
    fn options(&self) -> String {
        let mut headings: Vec<Option<&str>> = Vec::new();
        for heading in self.visible().map(Arg::get_help_heading) {
            if !headings.contains(&heading) {
                headings.push(heading);
            }
        }
        let mut section = Roff::new();
        section.control("SH", ["OPTIONS"]);
        let mut text = body_of(|page| section.to_writer(page));
        for heading in headings {
            if let Some(heading) = heading {
                let mut subsection = Roff::new();
                subsection.control("SS", [heading]);
                text.push_str(&body_of(|page| subsection.to_writer(page)));
            }
            let options = self.visible().filter(|option| option.get_help_heading() == heading);
            let command = self.plain().args(options.cloned().map(for_page));
            let options = body_of(|page| Man::new(command.clone()).render_options_section(page));
            // Without its own heading.
            text.push_str(options.split_once('\n').map_or("", |(_, options)| options));
        }
        text
    }
}

impl Section<'_> {
    fn rendered(&self) -> String {
        let mut roff = Roff::new();
        roff.control("SH", [self.title]);
        for (at, part) in self.parts.iter().enumerate() {
            match part {
                Part::Text(text) => {
                    if at > 0 {
                        roff.control("PP", []);
                    }
                    roff.text([roman(*text)]);
                }
                Part::Item(term, meaning) => {
                    roff.control("TP", []);
                    roff.text([bold(*term)]);
                    roff.text([roman(*meaning)]);
                }
            }
        }
        body_of(|page| roff.to_writer(page))
    }
}

/// An option as the page has it: its whole help, as one paragraph, whatever help shows it. Possible
/// values become a list where they have texts of their own, else a sentence of the paragraph.
fn for_page(option: Arg) -> Arg {
    let help = option.get_long_help().or_else(|| option.get_help());
    let mut help = help.map(paragraph).unwrap_or_default();
    // A switch has "true" and "false".
    let has_value = option.get_action().takes_values();
    let values = if has_value { option.get_possible_values() } else { Vec::new() };
    let is_list = values.iter().any(|value| value.get_help().is_some());
    let visible = values.iter().filter(|value| !value.is_hide_set());
    let names: Vec<&str> = visible.map(PossibleValue::get_name).collect();
    if let [others @ .., last] = &names[..]
        && !is_list
        && !names.iter().all(|name| help.contains(name))
    {
        help.push_str(&format!(" {} or {last}.", others.join(", ")));
    }
    let is_sentence = !values.is_empty() && !is_list;
    let option = if is_sentence { option.hide_possible_values(true) } else { option };
    option.long_help(help).hide_short_help(false).hide_long_help(false).help_heading(None)
}

/// The paragraphs of a help text as sentences of one.
fn paragraph(help: &StyledStr) -> String {
    let text = help.to_string();
    let paragraphs = text.split("\n\n").map(|it| it.split_whitespace().collect::<Vec<_>>());
    let sentences = paragraphs.map(|words| words.join(" ")).filter(|text| !text.is_empty());
    let ended = sentences.map(|text| if text.ends_with('.') { text } else { format!("{text}.") });
    ended.collect::<Vec<_>>().join(" ")
}

/// What is written to memory, which takes everything.
fn text_of(write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> String {
    let mut bytes = Vec::new();
    let written = write(&mut bytes);
    debug_assert!(written.is_ok(), "{written:?}");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The same without what every text in roff begins with; the page's title has it.
fn body_of(write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> String {
    let text = text_of(write);
    match text.find(".S") {
        Some(start) => text[start..].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests;
