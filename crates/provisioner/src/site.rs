//! Where volumes are made.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use bitts_api::{Source, Volume, names};
use serde::{Deserialize, Serialize};

/// Where volumes are made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Site {
    /// The disks of the node that this runs on.
    Disks,
    /// A directory that a server exports.
    Share(Share),
}

impl Site {
    /// Whether what lies at one lies at the other, however it is mounted.
    #[must_use]
    pub fn holds_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Disks, Self::Disks) => true,
            (Self::Share(a), Self::Share(b)) => a.export() == b.export(),
            _ => false,
        }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disks => f.write_str("the disks"),
            Self::Share(share) => share.fmt(f),
        }
    }
}

/// A directory that an NFS server exports, and how it is mounted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Share {
    /// The server's name or address; an IPv6 address without brackets.
    pub server: Box<str>,
    /// The path that it exports, or of a directory below one.
    pub path: Box<str>,
    /// Mount options of the volumes there.
    pub options: Box<[Box<str>]>,
}

impl Share {
    /// A share as users write it: `nas:/export`, `[fd00::1]:/export`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (of_server, below) = text.split_once(":/")?;
        Some(Self {
            server: server(of_server)?,
            path: share(&format!("/{below}"))?,
            options: [].into(),
        })
    }

    /// What it is, however it is mounted.
    #[must_use]
    pub fn export(&self) -> (&str, &str) {
        (&self.server, &self.path)
    }

    /// The share on which a volume was made, where the volume says it: its source must lie in it.
    #[must_use]
    pub fn of_volume(volume: &Volume) -> Option<Self> {
        let (server, path) = on_server(&volume.source)?;
        let made_on = volume.meta.annotations.get(names::PROVISIONED_ON)?;
        let mut share = Self {
            server: server.into(),
            path: "".into(),
            options: volume.mount_options.clone(),
        };
        share.path = made_on.strip_prefix(&share.to_string())?.into();
        let below = path.strip_prefix(&*share.path)?;
        let is_below = share.path.ends_with('/') || below.starts_with('/');
        (share.path.starts_with('/') && is_below).then_some(share)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.server.contains(':') {
            write!(f, "[{}]:{}", self.server, self.path)
        } else {
            write!(f, "{}:{}", self.server, self.path)
        }
    }
}

/// What CSI drivers for NFS call the server and the path on it.
pub(crate) const CSI_SERVER: &str = "server";
pub(crate) const CSI_SHARE: &str = "share";

/// The server of a volume on NFS, and its path there; a CSI driver's say it in their attributes.
pub(crate) fn on_server(source: &Source) -> Option<(&str, &str)> {
    match source {
        Source::Nfs { server, path, .. } => Some((server, path)),
        Source::Csi(volume) => {
            let attribute = |name| volume.attributes.get(name).map(|value| &**value);
            Some((attribute(CSI_SERVER)?, attribute(CSI_SHARE)?))
        }
        _ => None,
    }
}

/// A server's name or address as a class has it, if it can be one.
pub(crate) fn server(text: &str) -> Option<Box<str>> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    if let Some(bare) = bare {
        return bare.parse::<Ipv6Addr>().is_ok().then(|| bare.into());
    }
    let is_name = |text: &str| {
        let mut bytes = text.bytes();
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        bytes.next().is_some_and(|b| b.is_ascii_alphanumeric()) && bytes.all(fits)
    };
    (is_name(text) || text.parse::<IpAddr>().is_ok()).then(|| text.into())
}

/// The path of a share as a class has it, without what makes two spellings of one path.
pub(crate) fn share(text: &str) -> Option<Box<str>> {
    if !text.starts_with('/') || text.contains(char::is_control) {
        return None;
    }
    let names: Vec<&str> = text.split('/').filter(|name| !name.is_empty()).collect();
    let leads_elsewhere = names.iter().any(|name| matches!(*name, "." | ".."));
    (!leads_elsewhere).then(|| format!("/{}", names.join("/")).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_paths_as_users_write_them() {
        for (text, expected) in [
            ("nas", Some("nas")),
            ("nas.example.org", Some("nas.example.org")),
            ("10.0.0.9", Some("10.0.0.9")),
            ("fd00::1", Some("fd00::1")),
            ("[fd00::1]", Some("fd00::1")),
            ("", None),
            ("nas:/a", None),
            ("-o", None),
            ("a b", None),
            ("[nas]", None),
        ] {
            assert_eq!(server(text).as_deref(), expected, "{text}");
        }
        for (text, expected) in [
            ("/", Some("/")),
            ("/a//b/", Some("/a/b")),
            ("a", None),
            ("", None),
            ("/a/../b", None),
            ("/a\nb", None),
        ] {
            assert_eq!(share(text).as_deref(), expected, "{text}");
        }
    }
}
