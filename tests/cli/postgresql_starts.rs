//! Starts that PostgreSQL refuses: a server of its own in, the sentence with the remedy out.
//!
//! Knows no jobs; what the store does with a server that is there is tested in `store_postgres`.

use std::fs;
use std::process::Command;
use std::time::Instant;

use super::postgresql::{PATIENCE, Server};
use super::{refusal, with_words};

fn refused(conninfo: &str) -> String {
    let mut command = with_words(Command::new(env!("CARGO_BIN_EXE_ringgeard")), "-p 0 -q Postgres");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PG")) {
        command.env_remove(name);
    }
    command.arg(format!("--libpq-conninfo={conninfo}"));
    refusal(command)
}

#[test]
fn a_start_without_a_usable_database_names_place_cause_and_remedy() {
    let Some(server) = Server::start() else { return };
    let folder = server.folder().display();
    let place =
        |database: &str| format!("PostgreSQL database \"{database}\" at {folder} port 5432");
    let mut admin = server.admin("jobs");
    assert_eq!(
        refused(&server.conninfo("nowhere")),
        format!(
            "can't use {}: database \"nowhere\" does not exist; create the database (createdb) or \
             name another one",
            place("nowhere")
        )
    );
    admin.batch_execute("CREATE ROLE alice LOGIN PASSWORD 'secret'").unwrap();
    let rules = "local all alice scram-sha-256\nlocal all all trust\n";
    fs::write(server.data().join("pg_hba.conf"), rules).unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").unwrap();
    let alice = server.conninfo("jobs").replace("user=postgres", "user=alice");
    // The new rules come into force a moment later.
    let deadline = Instant::now() + PATIENCE;
    let sentence = loop {
        let sentence = refused(&format!("{alice} password=wrong"));
        if sentence.contains("password") || Instant::now() > deadline {
            break sentence;
        }
    };
    assert_eq!(
        sentence,
        format!(
            "can't use {}: password authentication failed for user \"alice\"; check the user, the \
             password and the server's pg_hba.conf",
            place("jobs")
        )
    );
    assert_eq!(
        refused(&alice),
        format!(
            "can't use {}: invalid configuration: password missing; check the connection string \
             and what the server asks for",
            place("jobs")
        )
    );
    admin.batch_execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC").unwrap();
    assert_eq!(
        refused(&format!("{alice} password=secret")),
        format!(
            "can't use {}: permission denied for schema public; grant the user CREATE and USAGE on \
             the schema and all rights on the tables in it that it didn't create",
            place("jobs")
        )
    );
    let nobody = server.conninfo("jobs").replace("user=postgres", "user=carol");
    assert_eq!(
        refused(&nobody),
        format!(
            "can't use {}: role \"carol\" does not exist; check the user, the password and the \
             server's pg_hba.conf",
            place("jobs")
        )
    );
}
