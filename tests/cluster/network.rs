//! Hosts of a small network inside a network namespace of the test's own: addresses in, links that
//! can be cut out.
//!
//! A host is a namespace of network, processes and mounts, tied to a bridge. Packets of one
//! direction are lost by a false entry in the sender's table of neighbours, which needs no module
//! of the kernel. An ordinary user may do all of it where the kernel lets users have namespaces.

use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Command, Stdio};

use nix::unistd::Uid;

use crate::child::{tool, wait_until};
use crate::postgresql::children;
use crate::skips::skip;

/// Where clients are, and where the database is.
const CLIENTS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);
pub(crate) const DATABASE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 253);
/// Set in a process that is in a namespace of its own.
const VARIABLE: &str = "CLUSTER_NETWORK";

/// The words that start a program in a network namespace of its own where it may change things.
fn unshare() -> Vec<&'static str> {
    if Uid::effective().is_root() {
        return vec!["unshare", "--net"];
    }
    vec!["unshare", "--map-current-user", "--keep-caps", "--net"]
}

/// Whether this process is in a namespace of its own.
pub(crate) fn is_own() -> bool {
    std::env::var(VARIABLE).is_ok()
}

/// Runs a test of this program again, in a namespace of its own; `None` where that can't be.
pub(crate) fn run_in_own(test: &str) -> Option<bool> {
    for name in ["unshare", "nsenter", "ip"] {
        tool(name)?;
    }
    let words = unshare();
    let probe = ["unshare", "--net", "--pid", "--mount", "--fork", "--mount-proc", "ip", "link"];
    let output = Command::new(words[0])
        .args(&words[1..])
        .args(["sh", "-c"])
        .arg(format!("ip link add br0 type bridge && {}", probe.join(" ")))
        .output()
        .unwrap();
    if !output.status.success() {
        let cause = String::from_utf8_lossy(&output.stderr);
        skip(&format!("this user can't have network namespaces: {}", cause.trim()));
        return None;
    }
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg(program).args([test, "--exact", "--nocapture"]);
    Some(command.env(VARIABLE, "1").status().unwrap().success())
}

fn run(program: &str, line: &str) {
    let output = Command::new(program).args(line.split(' ')).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {line}: {said}");
}

fn ip(line: &str) {
    run("ip", line);
}

/// What a host sends or gets is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Its link is down.
    Link,
    /// All that it sends.
    Outgoing,
    /// All that is sent to it.
    Incoming,
    /// What it sends to the database.
    ToDatabase,
}

/// A host of the network; its processes end with it.
pub(crate) struct Host {
    number: u8,
    holder: Child,
    /// A process in its namespaces.
    inside: i32,
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Makes hosts, and the bridge that joins them.
pub(crate) fn hosts(count: u8) -> Vec<Host> {
    ip("link set lo up");
    ip("link add br0 type bridge");
    for address in [CLIENTS, DATABASE] {
        ip(&format!("addr add {address}/24 dev br0"));
    }
    ip("link set br0 up");
    (1..=count).map(Host::new).collect()
}

impl Host {
    fn new(number: u8) -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "--pid", "--mount", "--fork", "--mount-proc", "--kill-child"]);
        // The program says when it runs, which is when its namespaces are there.
        command.args(["sh", "-c", "ip link set lo up && exec sleep infinity"]);
        let holder = command.stdin(Stdio::null()).spawn().unwrap();
        let inside = wait_until("a host", || {
            let inside = *children(holder.id()).first()?;
            let name = std::fs::read_to_string(format!("/proc/{inside}/comm")).ok()?;
            (name == "sleep\n").then_some(inside.as_raw())
        });
        let host = Self { number, holder, inside };
        ip(&format!("link add v{number} type veth peer name e0 netns {inside}"));
        ip(&format!("link set v{number} master br0 up"));
        host.ip(&format!("addr add {}/24 dev e0", host.address()));
        host.ip("link set e0 up");
        host
    }

    pub(crate) fn address(&self) -> IpAddr {
        Ipv4Addr::new(10, 77, 0, self.number).into()
    }

    /// The words that start a program on it, as a child of the process that they start.
    pub(crate) fn enter(&self) -> Vec<String> {
        let words = format!("nsenter --target {} --net --pid --mount", self.inside);
        words.split(' ').map(str::to_owned).collect()
    }

    fn ip(&self, line: &str) {
        run("nsenter", &format!("--target {} --net ip {line}", self.inside));
    }

    /// Begins to lose packets.
    pub(crate) fn lose(&self, loss: Loss) {
        let false_entry = |address: IpAddr, device: &str| {
            format!("neigh replace {address} lladdr 02:00:00:00:00:99 dev {device} nud permanent")
        };
        match loss {
            Loss::Link => ip(&format!("link set v{} down", self.number)),
            Loss::Outgoing => {
                self.ip(&false_entry(CLIENTS.into(), "e0"));
                self.ip(&false_entry(DATABASE.into(), "e0"));
            }
            Loss::Incoming => ip(&false_entry(self.address(), "br0")),
            Loss::ToDatabase => self.ip(&false_entry(DATABASE.into(), "e0")),
        }
    }

    /// Loses none any more.
    pub(crate) fn heal(&self, loss: Loss) {
        let forget = |address: IpAddr, device: &str| format!("neigh del {address} dev {device}");
        match loss {
            Loss::Link => ip(&format!("link set v{} up", self.number)),
            Loss::Outgoing => {
                self.ip(&forget(CLIENTS.into(), "e0"));
                self.ip(&forget(DATABASE.into(), "e0"));
            }
            Loss::Incoming => ip(&forget(self.address(), "br0")),
            Loss::ToDatabase => self.ip(&forget(DATABASE.into(), "e0")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;
    use crate::node::Node;

    /// Whether a connection from an address of this host is made soon.
    fn connects(from: Ipv4Addr, to: SocketAddr) -> bool {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
        socket.connect_timeout(&to.into(), Duration::from_millis(300)).is_ok()
    }

    #[test]
    fn each_loss_is_of_its_direction_and_is_healed() {
        const TEST: &str = "network::tests::each_loss_is_of_its_direction_and_is_healed";
        if !is_own() {
            assert!(run_in_own(TEST).unwrap_or(true), "see above");
            return;
        }
        let hosts = hosts(2);
        let mut node = Node::at((hosts[0].address(), 4730).into(), &[]);
        node = node.child_of(&hosts[0].enter());
        node.start();
        let to = node.address;
        assert!(connects(CLIENTS, to) && connects(DATABASE, to));
        let all = [Loss::Link, Loss::Outgoing, Loss::Incoming, Loss::ToDatabase];
        for (loss, is_clients) in all.into_iter().zip([false, false, false, true]) {
            hosts[0].lose(loss);
            assert_eq!(connects(CLIENTS, to), is_clients, "{loss:?}");
            assert!(!connects(DATABASE, to), "{loss:?}");
            hosts[0].heal(loss);
            wait_until("the network", || connects(CLIENTS, to).then_some(()));
            wait_until("the network", || connects(DATABASE, to).then_some(()));
        }
        node.signal("STOP");
        assert!(node.ask("version").is_err());
        node.signal("CONT");
        assert!(node.ask("version").is_ok());
        node.kill();
        node.start();
        node.signal("TERM");
        assert_eq!(node.wait().code(), Some(0));
    }
}
