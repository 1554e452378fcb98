//! The calls of a driver's controller: attaching to nodes and detaching from them.

use std::collections::{BTreeMap, BTreeSet};

use super::Driver;
use crate::error::CsiError;
use crate::v1::controller_client::ControllerClient;
use crate::v1::controller_service_capability::Type;
use crate::v1::controller_service_capability::rpc::Type as Rpc;
use crate::v1::identity_client::IdentityClient;
use crate::v1::plugin_capability::Type as Plugin;
use crate::v1::plugin_capability::service::Type as Service;
use crate::v1::{self};

/// So many pages of volumes at most: a driver whose tokens lead in a circle is told so.
const PAGES: usize = 100_000;

/// What a driver's controller can do, as far as attaching goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControllerCapabilities {
    /// Volumes are attached to nodes before they are used there.
    pub publishes: bool,
    /// It can be told to attach a volume so that it cannot be written.
    pub publishes_read_only: bool,
    /// It lists its volumes and, of each, on which nodes it is.
    pub lists_published: bool,
    /// It tells a single pod from a single node.
    pub one_writer: bool,
}

impl Driver {
    /// What its controller can do: nothing where the driver has none.
    ///
    /// # Errors
    /// As all calls: see [`CsiError::class`].
    pub async fn controller_capabilities(&self) -> Result<ControllerCapabilities, CsiError> {
        let request = v1::GetPluginCapabilitiesRequest {};
        let plugin: v1::GetPluginCapabilitiesResponse = call!(
            self,
            IdentityClient.get_plugin_capabilities(request),
            "GetPluginCapabilities"
        )?;
        let has_controller = plugin.capabilities.into_iter().any(|capability| {
            matches!(capability.r#type, Some(Plugin::Service(service))
                if service.r#type() == Service::ControllerService)
        });
        let mut can = ControllerCapabilities::default();
        if !has_controller {
            return Ok(can);
        }
        let request = v1::ControllerGetCapabilitiesRequest {};
        let answer: v1::ControllerGetCapabilitiesResponse = call!(
            self,
            ControllerClient.controller_get_capabilities(request),
            "ControllerGetCapabilities"
        )?;
        let (mut lists, mut says_where) = (false, false);
        for capability in answer.capabilities {
            let Some(Type::Rpc(rpc)) = capability.r#type else {
                continue;
            };
            match rpc.r#type() {
                Rpc::PublishUnpublishVolume => can.publishes = true,
                Rpc::PublishReadonly => can.publishes_read_only = true,
                Rpc::ListVolumes => lists = true,
                Rpc::ListVolumesPublishedNodes => says_where = true,
                Rpc::SingleNodeMultiWriter => can.one_writer = true,
                _ => {}
            }
        }
        can.lists_published = lists && says_where;
        Ok(can)
    }

    /// Attaches a volume to a node; returns what its node plugin needs to know.
    ///
    /// # Errors
    /// As all calls: see [`CsiError::class`].
    pub async fn attach(
        &self,
        request: v1::ControllerPublishVolumeRequest,
    ) -> Result<BTreeMap<String, String>, CsiError> {
        let answer: v1::ControllerPublishVolumeResponse = call!(
            self,
            ControllerClient.controller_publish_volume(request),
            "ControllerPublishVolume"
        )?;
        Ok(answer.publish_context)
    }

    /// The opposite of [`Driver::attach`].
    ///
    /// # Errors
    /// As all calls: see [`CsiError::class`].
    pub async fn detach(
        &self,
        request: v1::ControllerUnpublishVolumeRequest,
    ) -> Result<(), CsiError> {
        call!(
            self,
            ControllerClient.controller_unpublish_volume(request),
            "ControllerUnpublishVolume"
        )
        .map(drop)
    }

    /// On which nodes each volume is, by the driver's names for both.
    ///
    /// # Errors
    /// As all calls: see [`CsiError::class`]. Also when the list has no end.
    pub async fn published(&self) -> Result<BTreeMap<String, BTreeSet<String>>, CsiError> {
        const CALL: &str = "ListVolumes";
        let mut found = BTreeMap::<String, BTreeSet<String>>::new();
        let mut token = String::new();
        for _ in 0..PAGES {
            let request = v1::ListVolumesRequest {
                max_entries: 0,
                starting_token: token.clone(),
            };
            let page: v1::ListVolumesResponse =
                call!(self, ControllerClient.list_volumes(request), CALL)?;
            for entry in page.entries {
                let Some(volume) = entry.volume else { continue };
                let nodes = entry.status.unwrap_or_default().published_node_ids;
                found.entry(volume.volume_id).or_default().extend(nodes);
            }
            if page.next_token.is_empty() {
                return Ok(found);
            }
            if page.next_token == token {
                break;
            }
            token = page.next_token;
        }
        Err(CsiError::Broken {
            call: CALL,
            message: "the list has no end: its token repeats".to_owned(),
        })
    }
}
