//! Calls to a driver's controller over a real socket.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;
use std::time::Duration;

use bitts_csi::testing::{Disks, FakeController, Fate, Turn};
use bitts_csi::v1::controller_service_capability::rpc::Type as Rpc;
use bitts_csi::{Class, Code, ControllerCapabilities, CsiError, Driver, v1};

const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    _folder: tempfile::TempDir,
    socket: PathBuf,
    disks: Disks,
    controller: Option<FakeController>,
    driver: Driver,
}

impl World {
    async fn new(capabilities: &[Rpc], patience: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("csi.sock");
        let disks = Disks::new("disk.example.com", capabilities);
        let controller = FakeController::start(&socket, &disks).unwrap();
        let driver = Driver::connect(&socket, patience).await.unwrap();
        Self {
            _folder: folder,
            socket,
            disks,
            controller: Some(controller),
            driver,
        }
    }
}

fn publish(volume: &str, node: &str) -> v1::ControllerPublishVolumeRequest {
    v1::ControllerPublishVolumeRequest {
        volume_id: volume.to_owned(),
        node_id: node.to_owned(),
        ..Default::default()
    }
}

fn unpublish(volume: &str, node: &str) -> v1::ControllerUnpublishVolumeRequest {
    v1::ControllerUnpublishVolumeRequest {
        volume_id: volume.to_owned(),
        node_id: node.to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_volume_is_attached_listed_and_detached() {
    let all = [
        Rpc::PublishUnpublishVolume,
        Rpc::ListVolumes,
        Rpc::ListVolumesPublishedNodes,
    ];
    let world = World::new(&all, PATIENCE).await;
    let (disks, driver) = (&world.disks, &world.driver);
    assert!(driver.is_ready().await.unwrap());
    assert_eq!(driver.info().await.unwrap().name, "disk.example.com");
    let expected = ControllerCapabilities {
        publishes: true,
        lists_published: true,
        ..Default::default()
    };
    assert_eq!(driver.controller_capabilities().await.unwrap(), expected);
    for volume in ["a", "b", "c", "d", "e"] {
        let context = driver.attach(publish(volume, "n1")).await.unwrap();
        assert_eq!(context["device"], format!("/dev/{volume}"));
    }
    driver.attach(publish("a", "n2")).await.unwrap();
    driver.detach(unpublish("e", "n1")).await.unwrap();
    // Of several pages.
    let listed = driver.published().await.unwrap();
    assert_eq!(listed.keys().collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    assert_eq!(listed["a"].iter().collect::<Vec<_>>(), ["n1", "n2"]);
    assert!(
        !disks
            .attached()
            .contains(&("e".to_owned(), "n1".to_owned()))
    );
}

/// A driver that lists volumes and not where they are is not asked to.
#[tokio::test]
async fn what_a_controller_cannot_do_shows() {
    let world = World::new(&[Rpc::ListVolumes], PATIENCE).await;
    let can = world.driver.controller_capabilities().await.unwrap();
    assert_eq!(can, ControllerCapabilities::default());
}

#[tokio::test]
async fn what_is_known_of_an_attachment_that_failed() {
    let world = World::new(&[], Duration::from_millis(300)).await;
    let (disks, driver) = (&world.disks, &world.driver);
    let fails = |fate: Fate| {
        disks.decide(move |_| Turn {
            fate: Some(fate.clone()),
            ..Turn::default()
        });
    };
    fails(Fate::Refuses(Code::ResourceExhausted));
    let error = driver.attach(publish("a", "n")).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::ResourceExhausted));
    assert_eq!(error.class(), Class::Uncertain);
    // The answer says no, and yet it was done.
    fails(Fate::DoesAndFails(Code::Internal));
    driver.attach(publish("a", "n")).await.unwrap_err();
    assert_eq!(disks.attached().len(), 1);
    fails(Fate::Hangs);
    let error = driver.attach(publish("b", "n")).await.unwrap_err();
    assert!(matches!(error, CsiError::Deadline { .. }), "{error}");
    assert_eq!(error.code(), Some(Code::DeadlineExceeded));
}

#[tokio::test]
async fn a_controller_that_died_is_found_again_with_its_disks() {
    let mut world = World::new(&[Rpc::PublishUnpublishVolume], PATIENCE).await;
    world.driver.attach(publish("a", "n")).await.unwrap();
    drop(world.controller.take());
    let error = world.driver.attach(publish("b", "n")).await.unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::Uncertain, None));
    let _again = FakeController::start(&world.socket, &world.disks).unwrap();
    let driver = Driver::connect(&world.socket, PATIENCE).await.unwrap();
    driver.detach(unpublish("a", "n")).await.unwrap();
    assert!(world.disks.attached().is_empty());
}
