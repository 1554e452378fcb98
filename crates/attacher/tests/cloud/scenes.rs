//! Scenes in lines: what happens, and what is so after it. Each is a file in `scenes/`.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use bitts_api::ObjectKey;
use bitts_attacher::CloudOptions;
use serde_json::json;

use crate::world::{Fate, World, disk, instance, node_key};

/// Does one line; `Err` says what is not as the line says.
fn perform(world: &mut World, line: &str) -> Result<(), String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let expect = |holds: bool, what: String| if holds { Ok(()) } else { Err(what) };
    let has = |world: &World, name: &str, node: &str| {
        world.attached.contains(&(disk(name), instance(node)))
    };
    match words[..] {
        ["node", name] => world.add_node(name),
        ["node", name, "is", "ready"] => world.set_ready(name, true),
        ["node", name, "is", "down"] => world.set_ready(name, false),
        ["node", name, "is", "tainted"] => world.set_taint(name, true),
        ["node", name, "is", "deleted"] => world.delete(&node_key(name)),
        ["node", name, "is", "a", "kubelets"] => world.change(&node_key(name), |node| {
            node["metadata"]["annotations"]["bitts.dev/mounted-by"] = json!(null);
        }),
        ["node", name, "is", "no", "machine"] => world.change(&node_key(name), |node| {
            node["spec"]["providerID"] = json!("kind://docker/n1");
        }),
        ["machine", name, "stops"] => world.stop(name),
        ["volume", name, "is", "deleted"] => world.delete(&ObjectKey::volume(name)),
        ["volume", name, ref modes @ ..] => world.add_volume(name, modes),
        ["pod", name, volume, node] => world.add_pod(name, volume, node),
        ["pod", name, "ends"] => world.delete(&ObjectKey::pod("shop", name)),
        ["attachment", volume, node] => world.put(
            &ObjectKey::attachment(format!("csi-{volume}-{node}").as_str()),
            json!({"metadata": {}, "spec": {"attacher": "pd.csi.storage.gke.io",
                "nodeName": node, "source": {"persistentVolumeName": volume}}}),
        ),
        ["attachment", volume, node, "goes"] => {
            world.delete(&ObjectKey::attachment(
                format!("csi-{volume}-{node}").as_str(),
            ));
        }
        ["operator", "attaches", name, to] => {
            world.attached.insert((disk(name), instance(to)));
        }
        ["operator", "detaches", name, from] => {
            world.attached.remove(&(disk(name), instance(from)));
        }
        ["cloud", "fails", ref with @ ..] => world.fails = Some(with.join(" ")),
        ["cloud", "works"] => world.fails = None,
        // Its next operation is begun, and nobody hears of that.
        ["cloud", "loses", "the", "answer"] => {
            for _ in 0..1000 {
                let nodes = ["n1", "n2", "n3"];
                for node in nodes {
                    world.agent(node);
                }
                world.deliver();
                world.execute(false);
                world.cloud(0, Fate::Lost);
                if !world.operations.is_empty() {
                    return Ok(());
                }
            }
            return Err("nothing was begun".to_owned());
        }
        ["agents", "stop"] => world.agents_are_off = true,
        ["agents", "work"] => world.agents_are_off = false,
        ["restart"] => world.restart(),
        ["rest"] => world.rest(),
        ["wait", minutes] => {
            let minutes: u64 = minutes
                .trim_end_matches('m')
                .parse()
                .map_err(|_| "minutes")?;
            world.wait(Duration::from_secs(60 * minutes));
        }
        ["attached", name, node] => {
            return expect(
                has(world, name, node),
                format!("attached are {:?}", world.attached),
            );
        }
        ["detached", name, node] => {
            return expect(!has(world, name, node), "it is attached".to_owned());
        }
        ["listed", name, node] => {
            return expect(world.lists(name, node), "it is not".to_owned());
        }
        ["unlisted", name, node] => {
            return expect(!world.lists(name, node), "it is".to_owned());
        }
        ["mounted", name, node] => {
            let mounted = world.mounted.contains(&(name.to_owned(), node.to_owned()));
            return expect(mounted, format!("mounted are {:?}", world.mounted));
        }
        ["asked", ref what @ ..] => {
            let what = what.join(" ");
            let asked = world.asked.contains(&what);
            return expect(asked, format!("asked was {:?}", world.asked));
        }
        ["asked-nothing"] => {
            let asked = &world.asked;
            return expect(asked.is_empty(), format!("asked was {asked:?}"));
        }
        ["forget"] => {
            world.asked.clear();
            world.events.clear();
        }
        ["told", pod, ref text @ ..] => {
            let text = text.join(" ");
            let about = world.events.iter().filter(|event| event.about.name == pod);
            let told: Vec<&str> = about.map(|event| &*event.message).collect();
            let found = told.iter().any(|message| message.contains(&text));
            return expect(found, format!("it was told {told:?}"));
        }
        ["quiet", pod] => {
            let told = world.events.iter().find(|event| event.about.name == pod);
            return expect(told.is_none(), format!("it was told {told:?}"));
        }
        _ => return Err("nobody knows how".to_owned()),
    }
    Ok(())
}

#[test]
fn every_scene_goes_as_written() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cloud/scenes");
    let (mut seen, mut wrong) = (0, String::new());
    let files = std::fs::read_dir(dir).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    for file in files {
        seen += 1;
        let mut world = World::new(CloudOptions::default());
        for (number, line) in std::fs::read_to_string(&file).unwrap().lines().enumerate() {
            if line.starts_with('#') || line.is_empty() {
                continue;
            }
            if let Err(why) = perform(&mut world, line) {
                let _ = writeln!(wrong, "{}:{}: {line}: {why}", file.display(), number + 1);
            }
        }
        for broken in &world.broken {
            let _ = writeln!(wrong, "{}: {broken}", file.display());
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(seen >= 15, "{seen} scenes");
}
