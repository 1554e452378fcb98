//! What a child process does: one call that may hang, on the directory that is its standard input.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use crate::dir::Component;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsOpenFlags, MountAttrFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsopen,
};

use crate::detached::Detached;
use crate::device;

/// The kinds of work.
pub(crate) const MOUNT_NFS: &str = "mount-nfs";
pub(crate) const RENEW_NFS: &str = "renew-nfs";
pub(crate) const UNMOUNT: &str = "unmount";
pub(crate) const PROBE: &str = "probe";
pub(crate) const RESOLVE: &str = "resolve";
pub(crate) const SWEEP: &str = "sweep";
pub(crate) const GROUP: &str = "group";
pub(crate) const PROGRAM: &str = "program";

/// The ways to unmount.
pub(crate) const NORMAL: &str = "normal";
pub(crate) const FORCED: &str = "forced";
pub(crate) const LAZY: &str = "lazy";

/// Exit codes that are no error numbers: `mount.nfs` failed (32 is EPIPE, which no mount gives),
pub(crate) const PROGRAM_FAILED: i32 = 32;
/// the server's name leads nowhere,
pub(crate) const UNKNOWN_SERVER: i32 = 200;
/// `mount.nfs` is not here,
pub(crate) const NO_PROGRAM: i32 = 201;
/// the work was not understood.
const NONSENSE: i32 = 202;

/// The port of NFS.
const PORT: u16 = 2049;
/// How long a server may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// Options of a mount, each with what the kernel calls it.
pub(crate) const MOUNT_FLAGS: &[(&str, MountAttrFlags)] = &[
    ("ro", MountAttrFlags::MOUNT_ATTR_RDONLY),
    ("nosuid", MountAttrFlags::MOUNT_ATTR_NOSUID),
    ("nodev", MountAttrFlags::MOUNT_ATTR_NODEV),
    ("noexec", MountAttrFlags::MOUNT_ATTR_NOEXEC),
    ("noatime", MountAttrFlags::MOUNT_ATTR_NOATIME),
    ("nodiratime", MountAttrFlags::MOUNT_ATTR_NODIRATIME),
    ("relatime", MountAttrFlags::empty()),
];

/// Why the work was not done.
pub(crate) struct Failure {
    code: i32,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn code(&self) -> i32 {
        self.code
    }

    pub(crate) fn of(code: i32, message: String) -> Self {
        Self { code, message }
    }

    pub(crate) fn new(doing: &str, errno: Errno) -> Self {
        Self {
            code: errno.raw_os_error(),
            message: format!("{doing}: {errno}"),
        }
    }
}

/// What came of the work.
pub(crate) enum Done {
    /// This is the answer, which may be empty.
    Said(String),
    /// This mount was made.
    Mounted(Detached),
}

/// Does the work that these words say, for [`crate::child::ask`] or [`crate::crew::call`].
pub(crate) fn perform(words: &[String]) -> Result<Done, Failure> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if let [device::work::DEVICE, words @ ..] = &*words {
        return device::work::perform(words);
    }
    let quietly = |done: Result<(), Failure>| done.map(|()| Done::Said(String::new()));
    match &*words {
        [MOUNT_NFS, server, source, version, options @ ..] => {
            mount_nfs(server, source, version, options).map(Done::Mounted)
        }
        [RENEW_NFS, name, server, source, version, options @ ..] => {
            let mounted = mount_nfs(server, source, version, options)?;
            // Only now, as a bare directory would let containers write to the node instead.
            unmount(name, LAZY)?;
            Ok(Done::Mounted(mounted))
        }
        [UNMOUNT, name, how] => quietly(unmount(name, how)),
        [PROBE, paths @ ..] => Ok(Done::Said(probe(paths))),
        [RESOLVE, server] => resolve(server).map(|all| Done::Said(lines(&all))),
        [SWEEP, name] => quietly(sweep(name)),
        [GROUP, gid] => crate::group::give_here(gid).map(Done::Said),
        [PROGRAM, program, arguments @ ..] => Err(become_program(program, arguments)),
        _ => Err(Failure {
            code: NONSENSE,
            message: format!("no such work: {words:?}"),
        }),
    }
}

fn lines<T: ToString>(all: &[T]) -> String {
    all.iter().map(T::to_string).collect::<Vec<_>>().join("\n")
}

pub(crate) fn mount_nfs(
    server: &str,
    source: &str,
    version: &str,
    options: &[&str],
) -> Result<Detached, Failure> {
    let address = *resolve(server)?.first().ok_or_else(|| unknown(server))?;
    let value = |key: &str| {
        let pairs = options.iter().filter_map(|option| option.split_once('='));
        pairs
            .filter(|(name, _)| *name == key)
            .map(|(_, value)| value)
            .next_back()
    };
    let four = version.starts_with('4');
    if four && !value("proto").is_some_and(|proto| proto.starts_with("rdma")) {
        let port = value("port")
            .and_then(|port| port.parse().ok())
            .filter(|port| *port != 0);
        greet(SocketAddr::new(address, port.unwrap_or(PORT)))?;
    }
    let config = fsopen("nfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| {
        let advice = if errno == Errno::NODEV {
            "the kernel has no NFS client: load the module `nfs`"
        } else {
            "asking the kernel for NFS"
        };
        Failure::new(advice, errno)
    })?;
    let told = |doing: &str, errno| Failure::new(&kernel_says(&config, doing), errno);
    let set = |key: &str, value: &str| {
        fsconfig_set_string(&config, key, value)
            .map_err(|errno| told(&format!("mount option {key}={value}"), errno))
    };
    set("source", source)?;
    set("addr", &address.to_string())?;
    set("vers", version)?;
    if four
        && value("clientaddr").is_none()
        && let Some(own) = own_address(address)
    {
        set("clientaddr", &own.to_string())?;
    }
    let mut flags = MountAttrFlags::empty();
    for option in options {
        if let Some((_, flag)) = MOUNT_FLAGS.iter().find(|(name, _)| name == option) {
            flags |= *flag;
        } else if let Some((key, value)) = option.split_once('=') {
            set(key, value)?;
        } else {
            fsconfig_set_flag(&config, *option)
                .map_err(|errno| told(&format!("mount option {option}"), errno))?;
        }
    }
    fsconfig_create(&config).map_err(|errno| told(meaning(errno), errno))?;
    Detached::of(&config, flags).map_err(|errno| told("making the mount", errno))
}

/// Goes on as another program, which ends with the caller as this process does. It puts its mount into
/// the tree itself, and so must not live on; where it gets that far all the same, the kernel refuses
/// to mount what is mounted there already.
fn become_program(program: &str, arguments: &[&str]) -> Failure {
    let error = Command::new(program).args(arguments).exec();
    Failure::of(NO_PROGRAM, format!("starting {program}: {error}"))
}

/// What an error of the last step means to a user.
fn meaning(errno: Errno) -> &'static str {
    match errno {
        Errno::NOENT => "the server has no such path, or does not export it to this machine",
        Errno::ACCESS | Errno::PERM => "the server does not export this to this machine",
        Errno::PROTONOSUPPORT | Errno::OPNOTSUPP => "the server does not have this NFS version",
        Errno::CONNREFUSED => "nothing on the server serves NFS",
        Errno::TIMEDOUT => "the server does not answer",
        _ => "the kernel refused",
    }
}

/// What the kernel wrote down for whoever configures a file system.
pub(crate) fn kernel_says(config: &OwnedFd, doing: &str) -> String {
    let mut text = String::from(doing);
    let Ok(copy) = config.try_clone() else {
        return text;
    };
    let mut log = std::fs::File::from(copy);
    let mut line = [0; 1024];
    // One message a read; none left is an error.
    while let Ok(length @ 1..) = log.read(&mut line) {
        let message = String::from_utf8_lossy(&line[..length]);
        text.push_str(" (");
        text.push_str(message.trim_start_matches(['e', 'w', 'i']).trim());
        text.push(')');
    }
    text
}

fn resolve(server: &str) -> Result<Vec<IpAddr>, Failure> {
    let unbracketed = server.trim_start_matches('[').trim_end_matches(']');
    let addresses = (unbracketed, 0)
        .to_socket_addrs()
        .map_err(|error| Failure {
            message: format!("{}: {error}", unknown(server).message),
            ..unknown(server)
        })?;
    Ok(addresses.map(|address| address.ip()).collect())
}

fn unknown(server: &str) -> Failure {
    Failure {
        code: UNKNOWN_SERVER,
        message: format!("the server's name {server:?} cannot be resolved to an address"),
    }
}

/// Whether anything listens there. The kernel would find out as well, only much later.
fn greet(server: SocketAddr) -> Result<(), Failure> {
    let Err(error) = TcpStream::connect_timeout(&server, PATIENCE) else {
        return Ok(());
    };
    let errno = Errno::from_io_error(&error).unwrap_or(Errno::TIMEDOUT);
    let doing = format!("the server at {server} cannot be reached");
    Err(Failure::new(&doing, errno))
}

/// Where the server may call back, as NFS 4.0 does.
fn own_address(server: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match server {
        IpAddr::V4(_) => [0, 0, 0, 0].into(),
        IpAddr::V6(_) => [0; 16].into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    // Sends nothing, but chooses the way.
    socket.connect((server, PORT)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn unmount(name: &str, how: &str) -> Result<(), Failure> {
    let flags = match how {
        FORCED => UnmountFlags::FORCE,
        LAZY => UnmountFlags::DETACH,
        _ => UnmountFlags::empty(),
    };
    rustix::mount::unmount(below(name), UnmountFlags::NOFOLLOW | flags)
        .map_err(|errno| Failure::new("the kernel refused", errno))
}

/// An error number for each path, 0 where all is well.
fn probe(paths: &[&str]) -> String {
    let mut asked = BTreeMap::new();
    let mut ask = |path: &str| {
        let dir = open_below(path)?;
        // Without asking the server; what was asked for once needs no second answer.
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let stat = rustix::fs::statx(&dir, "", flags, StatxFlags::INO)
            .map_err(|errno| Failure::new("looking at it", errno))?;
        let place = (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino);
        let answer = asked.entry(place).or_insert_with(|| {
            // Some servers tell the room on a file system by a handle that they no longer know.
            let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
            let answer = rustix::fs::fstatfs(&dir)
                .and_then(|_| rustix::fs::statx(&dir, "", flags, StatxFlags::BASIC_STATS));
            answer.map_or_else(Errno::raw_os_error, |_| 0)
        });
        Ok::<_, Failure>(*answer)
    };
    let codes: Vec<_> = paths
        .iter()
        .map(|path| ask(path).unwrap_or_else(|failure| failure.code))
        .collect();
    lines(&codes)
}

fn open_below(path: &str) -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(std::io::stdin(), path, flags, Mode::empty(), resolve)
        .map_err(|errno| Failure::new("opening the directory", errno))
}

fn below(name: &str) -> String {
    format!("/proc/self/fd/0/{name}")
}

fn sweep(name: &str) -> Result<(), Failure> {
    let failure = |message: String| Failure {
        code: Errno::IO.raw_os_error(),
        message,
    };
    let name = Component::new(name).map_err(|e| failure(e.to_string()))?;
    crate::sweep::remove(std::io::stdin(), &name).map_err(|e| failure(e.to_string()))
}
