//! Linux mounts as a library: mount table, bind mounts, NFS, block devices, safe paths, private roots.
//!
//! Everything works on open directories, never on paths that somebody could swap in between: a
//! volume's path is resolved once to a file descriptor ([`path`]), the mount point is made and
//! entered one checked name at a time ([`dir`]), and the bind mount joins the two descriptors
//! ([`bind`]). What is mounted where comes from the kernel ([`table`]), and so does who still holds
//! it ([`census`], [`holders`]). Nothing but [`sweep`] removes a file or a directory that is not empty.
//!
//! What may wait for a server or a disk, as NFS ([`nfs`]) and block devices ([`device`]) do, is done
//! by a [`child`] with a deadline; what a program itself does on a mount that may hang, by an
//! [`attendant`]. A device is formatted only when it is proven to be blank.
//!
//! How much a directory may hold is the kernel's to say too ([`quota`]), where its file system can. A tree is
//! copied with all that it is ([`copy`]), its blocks shared where the file system can do that.
//!
//! It needs Linux 5.8 or newer ([`quota`] 5.14) and knows nothing of Kubernetes. There is no unsafe code
//! but for the calls of [`quota`], which no crate has.
//!
//! ```
//! use bitts_mount::dir::{Component, Dir};
//! use bitts_mount::path::Root;
//! use bitts_mount::table::MountTable;
//!
//! // What is mounted at /proc?
//! let table = MountTable::read()?;
//! assert_eq!(table.at("/proc".as_ref()).map(|m| &*m.fs_type), Some("proc"));
//!
//! // The same question by descriptor, which no rename can confuse.
//! let proc = Root::open("/".as_ref())?.resolve("/proc".as_ref())?;
//! assert!(proc.dir.identity()?.is_mount_point);
//!
//! // Names that come from elsewhere are checked before they become part of a path.
//! assert!(Component::new("../etc").is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod attendant;
pub mod bind;
pub mod census;
pub mod child;
pub mod copy;
mod crew;
mod detached;
pub mod device;
pub mod dir;
mod error;
mod file;
pub mod group;
pub mod holders;
mod namespace;
pub mod nfs;
pub mod path;
pub mod probe;
pub mod quota;
pub mod sandbox;
pub mod sweep;
pub mod table;
mod tree;
mod work;

pub use error::SystemError;
