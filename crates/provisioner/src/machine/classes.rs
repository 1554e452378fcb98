//! What is said of classes themselves: each is read when it is first seen and whenever it changes, and what
//! is wrong with it, or with the server that it names, is told on it, once.

use std::sync::Arc;

use bitts_api::machine::Effect;
use bitts_api::{BindingMode, Claim, StorageClass};

use super::Provisioner;
use crate::claim::is_served;
use crate::class::ClassError;
use crate::options::Ground;
use crate::reason;
use crate::site::Site;

impl Provisioner {
    /// Reads all classes of this provisioner. What a process that died began where their volumes are made
    /// is found so.
    pub(super) fn look_at_classes(&mut self) {
        let ours = |class: &&Arc<StorageClass>| self.options.serves(Some(&class.provisioner));
        let ours: Vec<_> = self.classes.iter().filter(ours).cloned().collect();
        self.told
            .retain(|uid, _| ours.iter().any(|c| c.meta.uid == *uid));
        for class in &ours {
            match self.options.template(class) {
                Ok(template) => {
                    self.ask(&template.site);
                    if self.sites.why_lost(&template.site).is_none() {
                        self.told.remove(&class.meta.uid);
                    }
                }
                Err(error) => {
                    let event = reason::class_invalid(class, &error.to_string());
                    self.tell_class(class, event);
                }
            }
        }
        self.look_at_all();
    }

    /// A server does not answer, or refuses: that is told on the classes that name it.
    pub(super) fn tell_classes_of(&mut self, site: &Site, why: &str) {
        for class in self.classes_of(site) {
            let event = reason::server_unreachable(&class, why);
            self.tell_class(&class, event);
        }
    }

    /// It answers again: what was told is over.
    pub(super) fn is_well(&mut self, site: &Site) {
        for class in self.classes_of(site) {
            self.told.remove(&class.meta.uid);
        }
    }

    /// The classes whose volumes are made there.
    pub(super) fn classes_of(&self, site: &Site) -> Vec<Arc<StorageClass>> {
        let of_site = |class: &&Arc<StorageClass>| {
            self.options.serves(Some(&class.provisioner))
                && self.options.template(class).is_ok_and(|t| t.site == *site)
        };
        self.classes.iter().filter(of_site).cloned().collect()
    }

    fn tell_class(&mut self, class: &StorageClass, event: bitts_api::machine::Event) {
        let told = self.told.get(&class.meta.uid);
        if told.is_none_or(|told| *told != event.message) {
            self.told
                .insert(class.meta.uid.clone(), event.message.clone());
            self.out.push(Effect::Event(event));
        }
    }

    /// Why no node ever makes a volume for the claim: its class binds before a pod has a node, so that
    /// nobody places it on one.
    pub(super) fn is_refused_everywhere(&self, claim: &Claim) -> Option<ClassError> {
        let immediate = matches!(self.options.ground, Ground::Node(_))
            && is_served(claim, &self.options)
            && claim.volume_name.is_none()
            && !claim.meta.is_deleting();
        let class = self.class_of(claim).filter(|_| immediate)?;
        let ours = self.options.serves(Some(&class.provisioner));
        (ours && class.binding_mode == BindingMode::Immediate).then_some(ClassError::Immediate)
    }
}
