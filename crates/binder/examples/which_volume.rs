//! Which claim would get which volume, and why not the others: reads manifests, needs no cluster.
//!
//! ```text
//! cargo run -p bitts-binder --no-default-features --example which_volume -- volumes.yaml claims.yaml
//! ```

use std::error::Error;
use std::process::ExitCode;

use bitts_api::{Claim, StorageClass, Volume};
use bitts_binder::{Outlook, explain};
use serde::Deserialize;
use serde_json::Value;

#[derive(Default)]
struct Manifests {
    volumes: Vec<Volume>,
    claims: Vec<Claim>,
    classes: Vec<StorageClass>,
}

impl Manifests {
    fn read(&mut self, text: &str) -> Result<(), Box<dyn Error>> {
        for document in serde_yaml_ng::Deserializer::from_str(text) {
            let object = Value::deserialize(document)?;
            if let Some(items) = object["items"].as_array() {
                items.iter().try_for_each(|item| self.add(item.clone()))?;
            } else {
                self.add(object)?;
            }
        }
        Ok(())
    }

    /// Takes what matters here and passes over other kinds.
    fn add(&mut self, object: Value) -> Result<(), Box<dyn Error>> {
        match object["kind"].as_str() {
            Some("PersistentVolume") => self.volumes.push(serde_json::from_value(object)?),
            Some("PersistentVolumeClaim") => self.claims.push(serde_json::from_value(object)?),
            Some("StorageClass") => self.classes.push(serde_json::from_value(object)?),
            _ => {}
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    let mut all = Manifests::default();
    for file in std::env::args().skip(1) {
        let text = std::fs::read_to_string(&file).map_err(Into::into);
        if let Err(error) = text.and_then(|text| all.read(&text)) {
            eprintln!("{file}: {error}");
            return ExitCode::FAILURE;
        }
    }
    for explanation in explain(&all.volumes, &all.claims, &all.classes) {
        let (namespace, name) = &explanation.claim;
        let namespace = namespace.as_ref().map_or("", |n| n.as_str());
        match &explanation.outlook {
            Outlook::Bound(volume) => println!("{namespace}/{name} has {volume}"),
            Outlook::Gets(volume) => println!("{namespace}/{name} gets {volume}"),
            Outlook::Waits(why) => println!("{namespace}/{name} waits for {}", why.code()),
            Outlook::Lost(_) => println!("{namespace}/{name} lost its volume"),
        }
        for others in &explanation.candidates {
            for volume in &others.names {
                println!("    not {volume}: {}", others.reason);
            }
        }
    }
    ExitCode::SUCCESS
}
