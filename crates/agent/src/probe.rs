//! Asking servers how their mounts are.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use bitts_mount::child::ChildError;
use bitts_mount::dir::Dir;
use bitts_mount::probe::{self, Answer};
use bitts_mount::table::MountTable;

use crate::heal::Ailment;
use crate::task::MountKey;
use crate::tree::{Tree, Trouble};

/// How long a server has to answer, where the operator's patience is not shorter.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long it may take to find out where a name leads.
const LOOKUP: Duration = Duration::from_secs(5);
/// What is asked for with one call.
const AT_ONCE: usize = 128;

impl Tree {
    /// How these mounts of a server are; those of which nothing can be said are left out.
    pub(crate) fn probe(
        &self,
        server: &str,
        keys: Vec<MountKey>,
    ) -> Vec<(MountKey, Option<Ailment>)> {
        self.try_probe(server, keys).unwrap_or_else(|error| {
            tracing::warn!(server, %error, "cannot ask a server how its mounts are");
            Vec::new()
        })
    }

    fn try_probe(
        &self,
        server: &str,
        keys: Vec<MountKey>,
    ) -> Result<Vec<(MountKey, Option<Ailment>)>, Trouble> {
        let table = MountTable::read()?;
        let addresses = probe::addresses()?;
        let mut found = Vec::new();
        // A name may have led to several machines, of which each answers for itself.
        let mut by_address = BTreeMap::<Option<IpAddr>, Vec<MountKey>>::new();
        for key in keys {
            match self.place(&key).and_then(|place| table.at(&place)) {
                Some(mount) => {
                    let address = addresses.get(&mount.id).copied();
                    by_address.entry(address).or_default().push(key);
                }
                None => found.push((key, Some(Ailment::Lost))),
            }
        }
        let kubelet = Dir::open(&self.kubelet_dir)?;
        for (address, keys) in by_address {
            let mut silent = None;
            for keys in keys.chunks(AT_ONCE) {
                let answers = match &silent {
                    Some(_) => vec![Answer::Silent; keys.len()],
                    None => self.ask(&kubelet, keys)?,
                };
                for (key, answer) in keys.iter().zip(answers) {
                    let ailment = match answer {
                        Answer::Well => None,
                        Answer::Stale => Some(Ailment::Stale),
                        Answer::Failing(error) => Some(Ailment::Failing(error)),
                        Answer::Silent => Some(
                            silent
                                .get_or_insert_with(|| unheard(server, address))
                                .clone(),
                        ),
                    };
                    found.push((key.clone(), ailment));
                }
            }
        }
        Ok(found)
    }

    fn ask(&self, kubelet: &Dir, keys: &[MountKey]) -> Result<Vec<Answer>, Trouble> {
        let path = |key: &MountKey| key.target().display().to_string();
        let paths: Vec<_> = keys.iter().map(path).collect();
        match probe::ask(kubelet, &paths, DEADLINE.min(self.patience)) {
            Ok(answers) => Ok(answers),
            Err(ChildError::Deadline(_)) => Ok(vec![Answer::Silent; keys.len()]),
            Err(error) => Err(Trouble::Other(error.to_string())),
        }
    }

    /// Where the mount table has a volume.
    pub(crate) fn place(&self, key: &MountKey) -> Option<PathBuf> {
        let target = self.target(key);
        // The table has no links in it. The last part is not looked at: it may hang.
        let above = target.parent()?.canonicalize().ok()?;
        Some(above.join(target.file_name()?))
    }
}

/// What to make of a server that does not answer at this address.
fn unheard(server: &str, address: Option<IpAddr>) -> Ailment {
    let unbracketed = server.trim_start_matches('[').trim_end_matches(']');
    let Some(address) = address.filter(|_| unbracketed.parse::<IpAddr>().is_err()) else {
        return Ailment::Hung;
    };
    match probe::resolve(server, LOOKUP) {
        Ok(now) if !now.is_empty() && !now.contains(&address) => Ailment::Moved(now[0].to_string()),
        _ => Ailment::Hung,
    }
}
