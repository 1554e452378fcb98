//! The scenarios of the stock controller's own tests (section 11, `Test_Run_*` and the recoveries),
//! and those in which bitts does better. Each is a file of lines in `scenarios/`.

mod support;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use bitts_api::ObjectKey;
use bitts_attacher::Options;
use serde_json::json;
use support::{World, attachment, node_key};

/// Does one line; `Err` says what is not as the line says.
fn perform(world: &mut World, line: &str) -> Result<(), String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let expect = |holds: bool, what: String| if holds { Ok(()) } else { Err(what) };
    match words[..] {
        ["node", name] => world.add_node(name, true),
        ["node", name, "unmanaged"] => world.add_node(name, false),
        ["node", name, "is", "ready"] => world.set_ready(name, true),
        ["node", name, "is", "down"] => world.set_ready(name, false),
        ["node", name, "is", "tainted"] => world.set_taint(name, true),
        ["node", name, "is", "deleted"] => world.delete(&node_key(name)),
        ["node", name, "is", "stuck"] => drop(world.stuck.insert(name.to_owned())),
        ["node", name, "is", "unstuck"] => drop(world.stuck.remove(name)),
        ["volume", name, ref modes @ ..] => world.add_volume(name, modes),
        ["pod", name, volume, node] => world.add_pod(name, volume, node),
        ["pod", name, "ends"] => world.delete(&ObjectKey::pod("shop", name)),
        ["pod", name, "succeeds"] => world.change(&ObjectKey::pod("shop", name), |pod| {
            pod["status"] = json!({"phase": "Succeeded"});
        }),
        ["attachment", volume, node] => world.put(
            &attachment(volume, node),
            json!({"metadata": {}, "spec": {"attacher": support::DRIVER, "nodeName": node,
                "source": {"persistentVolumeName": volume}}}),
        ),
        ["driver", "stops"] => world.driver_is_off = true,
        ["driver", "works"] => {
            world.driver_is_off = false;
            world.driver_fails = None;
        }
        ["driver", "fails", ref with @ ..] => world.driver_fails = Some(with.join(" ")),
        ["driver", "needs", "no", "attach"] => world.put(
            &ObjectKey::csi_driver(support::DRIVER),
            json!({"metadata": {}, "spec": {"attachRequired": false}}),
        ),
        ["status", "fails"] => world.status_fails = true,
        ["status", "works"] => world.status_fails = false,
        ["operator", "forces", volume, node] => world.change(&attachment(volume, node), |a| {
            a["metadata"]["annotations"] = json!({"bitts.dev/force-detach": "yes"});
        }),
        ["timed", "force"] => world.options.force_single_after = Some(Duration::from_secs(360)),
        ["restart"] => world.restart(),
        ["rest"] => world.rest(),
        ["wait", minutes] => {
            let minutes: u64 = minutes
                .trim_end_matches('m')
                .parse()
                .map_err(|_| "minutes")?;
            world.wait(Duration::from_secs(60 * minutes));
        }
        ["attached", volume, node] => {
            let attached = world
                .attached
                .contains(&(volume.to_owned(), node.to_owned()));
            return expect(attached, format!("attached are {:?}", world.attached));
        }
        ["detached", volume, node] => {
            let attached = world
                .attached
                .contains(&(volume.to_owned(), node.to_owned()));
            let there = world.get(&attachment(volume, node)).is_some();
            return expect(!attached && !there, "it is attached".to_owned());
        }
        ["asked", volume, node] => {
            return expect(
                world.get(&attachment(volume, node)).is_some(),
                "it is not".to_owned(),
            );
        }
        ["unasked", volume, node] => {
            return expect(
                world.get(&attachment(volume, node)).is_none(),
                "it is".to_owned(),
            );
        }
        ["listed", volume, node] => {
            return expect(world.is_listed(volume, node), "it is not".to_owned());
        }
        ["unlisted", volume, node] => {
            return expect(!world.is_listed(volume, node), "it is".to_owned());
        }
        ["mounted", volume, node] => {
            let mounted = world
                .mounted
                .contains(&(volume.to_owned(), node.to_owned()));
            return expect(mounted, format!("mounted are {:?}", world.mounted));
        }
        ["told", pod, ref text @ ..] => {
            let text = text.join(" ");
            let told: Vec<&str> = (world.events.iter())
                .filter(|event| event.about.name == pod)
                .map(|event| &*event.message)
                .collect();
            let found = told.iter().any(|message| message.contains(&text));
            return expect(found, format!("it was told {told:?}"));
        }
        ["quiet", pod] => {
            let told = world.events.iter().find(|event| event.about.name == pod);
            return expect(told.is_none(), format!("it was told {told:?}"));
        }
        ["forget", "events"] => world.events.clear(),
        _ => return Err("nobody knows how".to_owned()),
    }
    Ok(())
}

#[test]
fn every_scenario_goes_as_written() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let (mut seen, mut wrong) = (0, String::new());
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    files.sort();
    for file in files {
        seen += 1;
        let mut world = World::new(Options::default());
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
    assert!(seen >= 20, "{seen} scenarios");
}
