//! What a command is started with: variables, folder, mask, niceness, user.

use nix::unistd::Uid;

use crate::client::{Client, Ending};
use crate::exec::start;
use crate::manager::{Manager, worker};
use crate::server::Server;
use crate::skips;

/// What a command prints, without the line's end.
fn printed(client: &mut Client) -> String {
    let ending = client.ending("f", b"");
    let Ending::Complete(text) = ending else { panic!("{ending:?}") };
    String::from_utf8(text).unwrap().trim_end().to_owned()
}

#[test]
fn function_handle_and_key_are_in_the_environment() {
    let script = "printf '%s %s %s' \"$GEARMAN_FUNCTION\" \"$GEARMAN_HANDLE\" \"$GEARMAN_UNIQUE\"";
    let (_server, _manager, mut client) = start(script, "");
    let handle = client.submit_with("SUBMIT_JOB", "f", "a key", b"");
    let expected = [b"f ", &handle[..], b" a key"].concat();
    assert_eq!(client.wait(&handle).ending, Some(Ending::Complete(expected)));
}

#[test]
fn variables_are_added_or_replace_all_but_path_language_and_time_zone() {
    let script = "printf '%s/%s/%s/%s' \"$APP\" \"${PATH:+path}\" \"$TZ\" \"$SECRET\"";
    let variables = "environment = { APP = \"production\", DIR = \"x\" }";
    for (more, expected) in [
        (variables.to_owned(), "production/path/UTC/hidden"),
        (format!("{variables}\nclear-environment = true"), "production/path/UTC/"),
    ] {
        let server = Server::start();
        let servers = [server.address.to_string()];
        let folder = tempfile::tempdir().unwrap();
        let worker = worker("exec", script, &more);
        let _manager = Manager::start_with(folder, &servers, "", &worker, |command| {
            command.env("SECRET", "hidden").env("TZ", "UTC");
        });
        assert_eq!(printed(&mut Client::connect(server.address)), expected);
    }
}

#[test]
fn folder_mask_and_niceness_are_the_workers_own() {
    let more = "directory = \"/usr\"\numask = \"027\"\nnice = 3";
    let server = Server::start();
    // The nineteenth field is the niceness.
    let script = "pwd; umask; cut -d' ' -f19 /proc/$$/stat";
    let _manager = Manager::start(&server, &worker("exec", script, more));
    let text = printed(&mut Client::connect(server.address));
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let own: i32 = fields.split(' ').nth(16).unwrap().parse().unwrap();
    assert_eq!(lines, ["/usr", "0027", &(own + 3).to_string()]);
}

#[test]
fn a_command_runs_as_the_user_and_group_that_its_worker_names() {
    if !Uid::effective().is_root() {
        return skips::note("not root, who alone becomes another user");
    }
    let more = "user = \"nobody\"";
    let (_server, _manager, mut client) = start("id -u; id -g; id -G", more);
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let text = printed(&mut client);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..2], [nobody.uid.to_string(), nobody.gid.to_string()]);
    assert!(!lines[2].split(' ').any(|group| group == "0"), "root's groups: {text}");
}
