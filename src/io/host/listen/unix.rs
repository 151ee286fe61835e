//! Unix sockets: a path in, a bound socket out, and the removal of its file.
//!
//! A socket that a killed server left is replaced. One that is bound by a living process never is,
//! also before that process listens, and neither is a file of another kind.
//!
//! Invariant: the file never has more permissions than it is to have; what is removed at the end is
//! the file that was made here.

use std::fs::{self, File};
use std::io::{Error, ErrorKind};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags, Flock, FlockArg, OFlag, open};
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Group, Uid, User, fchownat};
use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;

use crate::io::host::retry::retry;
use crate::protocol::peer_address::UnixPeer;

/// The kernel's list of Unix sockets.
const KERNEL_LIST: &str = "/proc/net/unix";

/// Permissions of the files of Unix sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixSockets {
    /// As of chmod(1), at most 0o777.
    pub mode: u32,
    /// `USER`, or `USER:GROUP`, by names or numbers; without it the process's own.
    pub owner: Option<String>,
    /// The option that says the owner.
    pub owner_option: &'static str,
}

impl Default for UnixSockets {
    /// For the process's user and group.
    fn default() -> Self {
        Self { mode: 0o660, owner: None, owner_option: "--unix-owner" }
    }
}

/// Why a Unix socket can't be bound.
#[derive(Debug, Error)]
pub enum UnixError {
    /// It is in use.
    #[error(
        "cannot listen on unix:{}: another server listens there; stop that one, or give --listen \
         another path",
        .0.display()
    )]
    Living(PathBuf),
    /// What is there is no socket.
    #[error(
        "cannot listen on unix:{}: there is a file that is no socket; remove it yourself, or give \
         --listen another path",
        .0.display()
    )]
    NoSocket(PathBuf),
    /// The owner's name is unknown.
    #[error("there is no {kind} \"{name}\": create it, or choose another with {option}")]
    Owner {
        /// `user` or `group`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What says it.
        option: &'static str,
    },
    /// The kernel refuses the owner.
    #[error(
        "cannot give unix:{} to {owner}: {cause}; start as root, or leave {option} out",
        path.display()
    )]
    Chown {
        /// The socket's file.
        path: PathBuf,
        /// Its owner, as asked for.
        owner: String,
        /// What asks for it.
        option: &'static str,
        /// The kernel's error.
        cause: Error,
    },
    /// Anything else.
    #[error(
        "cannot listen on unix:{}: {cause}; give --listen a path in a folder that is there, and \
         that the server's user may write to",
        path.display()
    )]
    Other {
        /// The socket's file.
        path: PathBuf,
        /// The kernel's error.
        cause: Error,
    },
}

/// The file of a socket; it is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode, by which it is told from a later server's.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_own = |found: fs::Metadata| (found.dev(), found.ino()) == self.identity;
        if fs::symlink_metadata(&self.path).is_ok_and(is_own) {
            // A server that has become another user may have no permission any more.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds a socket, which doesn't listen yet.
pub(super) fn bind(path: &Path, options: &UnixSockets) -> Result<(Socket, SocketFile), UnixError> {
    let other = |cause| UnixError::Other { path: path.to_owned(), cause };
    let option = options.owner_option;
    let owner = options.owner.as_deref().map(|owner| Owner::named(owner, option)).transpose()?;
    let address = SockAddr::unix(path).map_err(other)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(other)?;
    socket.set_nonblocking(true).map_err(other)?;
    // bind(2) makes the file with the socket's own mode, less the umask. As long as it belongs to
    // this process's group instead of the asked for, only the user may do anything.
    let first = if owner.is_some() { options.mode & 0o700 } else { options.mode };
    fchmod(&socket, Mode::from_bits_truncate(first)).map_err(|cause| other(cause.into()))?;
    // The kernel keeps a killed server's socket until its rings are gone.
    let may_pass = |error: &UnixError| matches!(error, UnixError::Living(_));
    retry(may_pass, || {
        // Two servers that start at once would each take the other's socket for a killed server's.
        let _lock = path.parent().and_then(lock_folder);
        remove_left(path, &address)?;
        socket.bind(&address).map_err(|cause| match cause.kind() {
            ErrorKind::AddrInUse => UnixError::Living(path.to_owned()),
            _ => other(cause),
        })
    })?;
    let found = fs::symlink_metadata(path).map_err(other)?;
    let file = SocketFile { path: path.to_owned(), identity: (found.dev(), found.ino()) };
    if let Some(Owner { user, group }) = owner {
        fchownat(AT_FDCWD, path, Some(user), group, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(
            |cause| UnixError::Chown {
                path: path.to_owned(),
                owner: options.owner.clone().unwrap_or_default(),
                option,
                cause: cause.into(),
            },
        )?;
    }
    set_mode(path, options.mode).map_err(other)?;
    Ok((socket, file))
}

/// A user and perhaps a group.
struct Owner {
    user: Uid,
    group: Option<Gid>,
}

impl Owner {
    fn named(text: &str, option: &'static str) -> Result<Self, UnixError> {
        let unknown = |kind, name: &str| UnixError::Owner { kind, name: name.to_owned(), option };
        let (user, group) = text.split_once(':').map_or((text, None), |(u, g)| (u, Some(g)));
        let by_name = || User::from_name(user).ok().flatten().map(|user| user.uid);
        let user = user
            .parse()
            .ok()
            .map(Uid::from_raw)
            .or_else(by_name)
            .ok_or_else(|| unknown("user", user))?;
        let group = group.map(|name| {
            let by_name = || Group::from_name(name).ok().flatten().map(|group| group.gid);
            name.parse()
                .ok()
                .map(Gid::from_raw)
                .or_else(by_name)
                .ok_or_else(|| unknown("group", name))
        });
        Ok(Self { user, group: group.transpose()? })
    }
}

/// Locks a folder against other servers that start, if this process may read it.
fn lock_folder(folder: &Path) -> Option<Flock<File>> {
    let lock = || {
        let file = File::open(folder).map_err(|cause| (cause, false))?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| (errno.into(), errno == nix::errno::Errno::EWOULDBLOCK))
    };
    retry(|(_, is_locked): &(Error, bool)| *is_locked, lock).ok()
}

/// Removes a socket that no process has bound.
fn remove_left(path: &Path, address: &SockAddr) -> Result<(), UnixError> {
    let other = |cause| UnixError::Other { path: path.to_owned(), cause };
    match fs::symlink_metadata(path) {
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(other(cause)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(UnixError::NoSocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    if is_bound(path) {
        return Err(UnixError::Living(path.to_owned()));
    }
    // The list has neither the sockets of other containers nor this path by another name.
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(other)?;
    probe.set_nonblocking(true).map_err(other)?;
    match probe.connect(address).map_err(|cause| cause.kind()) {
        Err(ErrorKind::ConnectionRefused) => fs::remove_file(path).map_err(other),
        _ => Err(UnixError::Living(path.to_owned())),
    }
}

/// Whether a process has a socket bound to a path.
fn is_bound(path: &Path) -> bool {
    // Without a list of the kernel, the refused connection decides.
    let list = fs::read(KERNEL_LIST).unwrap_or_default();
    let path = path.as_os_str().as_encoded_bytes();
    list.split(|&byte| byte == b'\n').any(|line| {
        let rest = line.strip_suffix(path);
        rest.is_some_and(|rest| rest.ends_with(b" "))
    })
}

/// Sets the permissions of a socket's file, and of no file that a link leads to.
fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    let file = open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let found = fs::metadata(&link)?;
    if !found.file_type().is_socket() || found.permissions().mode() & 0o777 == mode {
        return Ok(());
    }
    fs::set_permissions(&link, fs::Permissions::from_mode(mode))
}

/// The process at the other end of a connected Unix socket.
pub(crate) fn peer_of(socket: &impl AsFd) -> Result<UnixPeer, Error> {
    let peer = getsockopt(socket, sockopt::PeerCredentials)?;
    Ok(UnixPeer { uid: peer.uid(), gid: peer.gid(), pid: peer.pid() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn options(mode: u32) -> UnixSockets {
        UnixSockets { mode, ..UnixSockets::default() }
    }

    fn mode_of(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_socket_has_its_mode_and_is_removed_by_its_own_server_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.sock");
        for mode in [0o660, 0o666, 0o600] {
            let (socket, file) = bind(&path, &options(mode)).unwrap();
            assert_eq!(mode_of(&path), mode);
            socket.listen(1).unwrap();
            UnixStream::connect(&path).unwrap();
            drop(file);
            assert!(!path.exists());
        }
        let (socket, file) = bind(&path, &options(0o660)).unwrap();
        fs::remove_file(&path).unwrap();
        let later = UnixListener::bind(&path).unwrap();
        drop((socket, file));
        assert!(path.exists(), "it is another server's");
        drop(later);
    }

    #[test]
    fn what_a_killed_server_left_is_replaced_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.sock");
        drop(UnixListener::bind(&path).unwrap());
        let (waiting, file) = bind(&path, &options(0o660)).unwrap();
        // It refuses connections, and is a living server's all the same.
        assert!(matches!(bind(&path, &options(0o660)), Err(UnixError::Living(_))));
        // By another name it is found by a connection.
        waiting.listen(0).unwrap();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("same")).unwrap();
        let same = folder.path().join("same/g.sock");
        assert!(matches!(bind(&same, &options(0o660)), Err(UnixError::Living(_))));
        drop(waiting);
        let (later, _file) = bind(&path, &options(0o660)).unwrap();
        drop((file, later));
        let plain = folder.path().join("plain");
        fs::write(&plain, "text").unwrap();
        std::os::unix::fs::symlink(&plain, folder.path().join("link")).unwrap();
        for name in ["plain", "link"] {
            let refused = bind(&folder.path().join(name), &options(0o660));
            assert!(matches!(refused, Err(UnixError::NoSocket(_))), "{name}");
        }
        assert_eq!(fs::read_to_string(&plain).unwrap(), "text");
        let missing = bind(&folder.path().join("no/g.sock"), &options(0o660));
        assert!(matches!(missing, Err(UnixError::Other { .. })));
    }

    #[test]
    fn an_owner_is_a_user_and_perhaps_a_group() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.sock");
        let own = (Uid::effective().as_raw(), Gid::effective().as_raw());
        for owner in [format!("{}", own.0), format!("{}:{}", own.0, own.1)] {
            let options = UnixSockets { owner: Some(owner), ..options(0o620) };
            let (_, _file) = bind(&path, &options).unwrap();
            let found = fs::symlink_metadata(&path).unwrap();
            assert_eq!((found.uid(), found.gid(), mode_of(&path)), (own.0, own.1, 0o620));
        }
        for (owner, kind) in [("no such user", "user"), ("0:no such group", "group")] {
            let options = UnixSockets { owner: Some(owner.to_owned()), ..options(0o600) };
            let refused = bind(&path, &options).unwrap_err();
            assert!(refused.to_string().starts_with(&format!("there is no {kind} ")), "{refused}");
            assert!(!path.exists());
        }
    }

    #[test]
    fn peers_are_known_by_their_credentials() {
        let (one, _other) = UnixStream::pair().unwrap();
        let own = UnixPeer {
            uid: Uid::effective().as_raw(),
            gid: Gid::effective().as_raw(),
            pid: i32::try_from(std::process::id()).unwrap(),
        };
        assert_eq!(peer_of(&one).unwrap(), own);
    }
}
