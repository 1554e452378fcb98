//! What is wrong with the mounts of running pods, what is told of it, and what is done about it.
//!
//! The whole story, with what running containers see, is in `docs/healing.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bitts_api::machine::{Measure, Moment, Reading, Severity};

use crate::retry::back_off;
use crate::task::{Mount, MountKey};

/// What is wrong with a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ailment {
    /// It is no longer in the mount table.
    Lost,
    /// Its server does not answer.
    Hung,
    /// Its server does not answer, and the server's name leads to this address by now.
    Moved(String),
    /// Its server answers, but no longer knows the directory that is mounted (`ESTALE`).
    Stale,
    /// Its server answers with this error.
    Failing(String),
}

/// What helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Mounting it, as nothing is there.
    Mount,
    /// Mounting it anew, and then letting go of what is there.
    Renew,
    /// Nothing that could be done here: it may pass.
    Wait,
}

impl Ailment {
    /// One word for each, for scripts: labels of the metric.
    const WORDS: [&str; 5] = ["failing", "hung", "lost", "moved", "stale"];

    /// The label of the metric.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Hung => "hung",
            Self::Moved(_) => "moved",
            Self::Stale => "stale",
            Self::Failing(_) => "failing",
        }
    }

    pub(crate) fn remedy(&self) -> Remedy {
        match self {
            Self::Lost => Remedy::Mount,
            Self::Moved(_) | Self::Stale => Remedy::Renew,
            Self::Hung | Self::Failing(_) => Remedy::Wait,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Lost => "BittsMountLost",
            Self::Hung => "BittsMountHung",
            Self::Moved(_) => "BittsServerMoved",
            Self::Stale => "BittsMountStale",
            Self::Failing(_) => "BittsMountFailing",
        }
    }

    fn text(&self, mount: &Mount) -> String {
        let (volume, source) = (&mount.key.volume, &mount.source);
        let volume = format!("volume {volume:?} ({source})");
        match self {
            Self::Lost => format!("{volume} was unmounted by somebody else. It is mounted again"),
            Self::Hung => format!(
                "{volume}: the server does not answer. What uses the volume waits, and goes on \
                 when the server is back"
            ),
            Self::Moved(to) => format!(
                "{volume}: the server does not answer where it was, and its name leads to {to} \
                 now. It is mounted anew from there; containers that run keep waiting for the old \
                 address: restart the pod"
            ),
            Self::Stale => format!(
                "{volume}: the server no longer knows the directory that is mounted (stale file \
                 handle). It is mounted anew; containers that run keep the old one: restart the pod"
            ),
            Self::Failing(error) => format!("{volume}: {error}"),
        }
    }

    /// What is said when it is over; `anew` when the volume was mounted for it.
    fn text_after(&self, mount: &Mount, anew: bool) -> String {
        let (volume, source) = (&mount.key.volume, &mount.source);
        let volume = format!("volume {volume:?} ({source})");
        match (self, anew) {
            (Self::Hung | Self::Failing(_), _) => format!("{volume}: the server answers again"),
            (_, false) => format!("{volume} is well again, and was not mounted anew"),
            (Self::Lost, true) => format!("{volume} is mounted again"),
            (Self::Moved(_) | Self::Stale, true) => format!(
                "{volume} is mounted anew for containers that start from now on; those that ran \
                 before keep the old mount until the pod is restarted"
            ),
        }
    }
}

/// Who has to answer for a mount.
pub(crate) fn server(mount: &Mount) -> Option<Box<str>> {
    let volume_type = mount.key.plugin.volume_type();
    volume_type.server(&mount.source).map(Into::into)
}

/// An event about a mount.
#[derive(Debug, PartialEq)]
pub(crate) struct Notice {
    pub(crate) severity: Severity,
    pub(crate) reason: &'static str,
    pub(crate) text: String,
}

/// A mount that vanishes again within this time is mounted again later and later.
const SOON: Duration = Duration::from_secs(10 * 60);

/// The mounts that something is wrong with.
#[derive(Debug, Default)]
pub(crate) struct Wards {
    ill: BTreeMap<MountKey, Ailment>,
    /// When a mount vanished last, and how often in a row.
    losses: BTreeMap<MountKey, (Moment, u32)>,
    healed: BTreeMap<&'static str, u64>,
    /// How often servers are asked, if at all.
    pub(crate) interval: Option<Duration>,
    /// Whether a timer for it runs.
    pub(crate) is_armed: bool,
    /// The servers that have yet to answer.
    pub(crate) asked: BTreeSet<Box<str>>,
}

impl Wards {
    /// What is wrong with a mount as far as is known.
    pub(crate) fn ailment(&self, key: &MountKey) -> Option<&Ailment> {
        self.ill.get(key)
    }

    /// A mount was found like this. Told once for each change.
    pub(crate) fn found(&mut self, mount: &Mount, ailment: Ailment) -> Option<Notice> {
        let before = self.ill.insert(mount.key.clone(), ailment.clone());
        if before.is_some_and(|before| before.word() == ailment.word()) {
            return None;
        }
        Some(Notice {
            severity: Severity::Warning,
            reason: ailment.reason(),
            text: ailment.text(mount),
        })
    }

    /// A mount is well; `anew` when it was mounted just now.
    pub(crate) fn well(&mut self, mount: &Mount, anew: bool) -> Option<Notice> {
        let before = self.ill.remove(&mount.key)?;
        *self.healed.entry(before.word()).or_default() += 1;
        Some(Notice {
            severity: Severity::Normal,
            reason: "BittsMountHealed",
            text: before.text_after(mount, anew),
        })
    }

    /// How long to wait before a mount that vanished is mounted again: at first not at all, but
    /// whoever keeps unmounting it must not be outrun.
    pub(crate) fn lost(&mut self, now: Moment, key: &MountKey) -> Duration {
        let before = self.losses.get(key);
        let before = before.filter(|(last, _)| now <= *last + SOON);
        let times = before.map_or(0, |(_, times)| *times);
        self.losses.insert(key.clone(), (now, times + 1));
        if times == 0 {
            Duration::ZERO
        } else {
            back_off(times)
        }
    }

    /// Nobody needs the mount any more.
    pub(crate) fn forget(&mut self, key: &MountKey) {
        self.ill.remove(key);
        self.losses.remove(key);
    }

    pub(crate) fn measures(&self) -> Vec<Measure> {
        let measure = |name, help, word: &str, reading| Measure {
            name,
            help,
            labels: vec![("reason", word.to_owned())],
            reading,
        };
        let ill = Ailment::WORDS.map(|word| {
            let count = self.ill.values().filter(|ill| ill.word() == word).count();
            measure(
                "bitts_agent_unhealthy_mounts",
                "Mounts of running pods that are not as they should be",
                word,
                Reading::Gauge(count as u64),
            )
        });
        let healed = Ailment::WORDS.map(|word| {
            measure(
                "bitts_agent_healed_mounts_total",
                "Mounts of running pods that are well again",
                word,
                Reading::Counter(self.healed.get(word).copied().unwrap_or_default()),
            )
        });
        ill.into_iter().chain(healed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitts_api::{Source, VolumeMode};

    use crate::plugins::Plugin;

    fn mount() -> Mount {
        Mount {
            key: MountKey {
                pod: "u".into(),
                volume: "v".into(),
                plugin: Plugin::Nfs,
                mode: VolumeMode::Filesystem,
            },
            source: Source::Nfs {
                server: "nas".into(),
                path: "/a".into(),
                read_only: false,
            },
            options: [].into(),
            read_only: false,
            group: None,
            staging: None,
            csi: None,
        }
    }

    #[test]
    fn each_change_is_told_once() {
        let (mut wards, mount) = (Wards::default(), mount());
        let told = |notice: Option<Notice>| notice.map(|notice| notice.reason);
        assert_eq!(told(wards.well(&mount, false)), None);
        for (ailment, reason) in [
            (Ailment::Hung, Some("BittsMountHung")),
            (Ailment::Hung, None),
            (Ailment::Moved("10.0.0.2".into()), Some("BittsServerMoved")),
            (Ailment::Stale, Some("BittsMountStale")),
            (Ailment::Failing("a".into()), Some("BittsMountFailing")),
            (Ailment::Failing("b".into()), None),
        ] {
            assert_eq!(told(wards.found(&mount, ailment.clone())), reason);
            assert_eq!(wards.ailment(&mount.key), Some(&ailment));
        }
        assert_eq!(told(wards.well(&mount, true)), Some("BittsMountHealed"));
        assert_eq!(told(wards.well(&mount, true)), None);
    }

    #[test]
    fn only_what_was_mounted_anew_asks_for_a_restart() {
        for (ailment, anew, restart) in [
            (Ailment::Lost, true, false),
            (Ailment::Hung, false, false),
            (Ailment::Failing("x".into()), false, false),
            (Ailment::Stale, false, false),
            (Ailment::Stale, true, true),
            (Ailment::Moved("10.0.0.2".into()), true, true),
        ] {
            let mut wards = Wards::default();
            wards.found(&mount(), ailment.clone());
            let text = wards.well(&mount(), anew).unwrap().text;
            assert_eq!(text.contains("restarted"), restart, "{ailment:?}: {text}");
        }
    }

    #[test]
    fn who_keeps_unmounting_is_not_outrun() {
        let (mut wards, key) = (Wards::default(), mount().key);
        let mut now = Moment::default();
        let mut waits = Vec::new();
        for after in [0, 1, 1, 599, 601] {
            now = now + Duration::from_secs(after);
            waits.push(wards.lost(now, &key).as_millis());
        }
        assert_eq!(waits, [0, 500, 1000, 2000, 0]);
    }
}
