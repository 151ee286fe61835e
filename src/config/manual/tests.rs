//! Tests of manual pages and completions, of a small program.

use super::*;
use clap::ArgAction;

fn manual() -> Manual<'static> {
    let command = Command::new("brew")
        .about("Makes tea")
        .disable_version_flag(true)
        .arg(
            Arg::new("cups")
                .long("cups")
                .short('c')
                .value_name("N")
                .default_value("1")
                .help("Cups to fill"),
        )
        .arg(
            Arg::new("heat")
                .long("heat")
                .value_name("HEAT")
                .value_parser(["LOW", "HIGH"])
                .help("How hot"),
        )
        .arg(
            Arg::new("leaf")
                .long("leaf")
                .value_name("NAME")
                .help("Leaves to take")
                .long_help("Leaves to take\n\nA name; .black unless given.\nSee 'leaves'")
                .help_heading("What's in it")
                .hide_short_help(true),
        )
        .arg(
            Arg::new("milk")
                .long("milk")
                .action(ArgAction::SetTrue)
                .help("With milk")
                .help_heading("What's in it")
                .hide_short_help(true),
        )
        .arg(Arg::new("secret").long("secret").hide(true));
    Manual {
        name: "brew",
        command,
        version: "7",
        usage: "[OPTIONS]",
        description: &["Heats water.", ".Then waits."],
        sections: &[Section {
            title: "FILES",
            parts: &[Part::Item("/etc/tea", "Recipes."), Part::Text("No others.")],
        }],
    }
}

fn file(name: &str) -> String {
    let mut manual = manual();
    manual.command.build();
    let files = manual.files();
    let (_, contents) = files.into_iter().find(|(it, _)| it == name).expect("the file");
    String::from_utf8(contents).expect("UTF-8")
}

#[test]
fn a_page_has_every_option_that_is_not_hidden_with_its_whole_help() {
    let expected = r#".ie \n(.g .ds Aq \(aq
.el .ds Aq '
.TH brew 8 7 ringgear "System Administration"
.SH NAME
brew \- Makes tea
.SH SYNOPSIS
\fBbrew\fR [OPTIONS]
.SH DESCRIPTION
Heats water.
.PP
\&.Then waits.
.SH OPTIONS
.TP
\fB\-c\fR, \fB\-\-cups\fR \fI<N>\fR [default: 1]
Cups to fill.
.TP
\fB\-\-heat\fR \fI<HEAT>\fR
How hot. LOW or HIGH.
.TP
\fB\-h\fR, \fB\-\-help\fR
Print help (see a summary with \*(Aq\-h\*(Aq).
.SS "What's in it"
.TP
\fB\-\-leaf\fR \fI<NAME>\fR
Leaves to take. A name; .black unless given. See \*(Aqleaves\*(Aq.
.TP
\fB\-\-milk\fR
With milk.
.SH FILES
.TP
\fB/etc/tea\fR
Recipes.
.PP
No others.
"#;
    assert_eq!(file("brew.8"), expected);
}

#[test]
fn completions_offer_what_the_page_has() {
    for name in ["brew.bash", "_brew", "brew.fish"] {
        let text = file(name);
        assert!(text.contains("cups") && text.contains("milk"), "{name}: {text}");
        assert!(!text.contains("secret"), "{name}: {text}");
    }
}
