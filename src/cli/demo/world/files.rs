//! The files of the story: two configurations, policies and entities, as `examples/demo/` has them. Limits: names and
//! addresses are put in for those of the run; nothing else is changed.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::broker::{Broker, STEMS};
use crate::cli::demo::DemoError;

const FILES: [(&str, &str); 8] = [
    ("invoices.toml", include_str!("../../../../examples/demo/invoices.toml")),
    ("ledger.toml", include_str!("../../../../examples/demo/ledger.toml")),
    ("policies/schema.cedarschema", include_str!("../../../../examples/demo/policies/schema.cedarschema")),
    ("policies/approvals.cedar", include_str!("../../../../examples/demo/policies/approvals.cedar")),
    ("policies/invoices.cedar", include_str!("../../../../examples/demo/policies/invoices.cedar")),
    ("policies/ledger.cedar", include_str!("../../../../examples/demo/policies/ledger.cedar")),
    ("policies/legacy.cedar", include_str!("../../../../examples/demo/policies/legacy.cedar")),
    ("policies/payouts.cedar", include_str!("../../../../examples/demo/policies/payouts.cedar")),
];
const ENTITIES: &str = include_str!("../../../../examples/demo/entities.json");

/// Writes the configurations and the policies.
pub(super) fn write(folder: &Path, broker: &Broker) -> Result<(), DemoError> {
    fs::create_dir_all(folder.join("policies"))?;
    for (name, text) in FILES {
        let mut text = text.to_owned();
        if name.ends_with(".toml") {
            text = text.replace("localhost:9092", &broker.bootstrap());
            for stem in STEMS {
                text = text.replace(&format!("\"{stem}."), &format!("\"{}{stem}.", broker.prefix()));
            }
            if broker.is_embedded() {
                // The embedded broker leaves questions about settings unanswered: they need not be waited for long.
                text = text.replace("[kafka]", "[kafka]\n\"socket.timeout.ms\" = \"2000\"");
            }
        }
        fs::write(folder.join(name), text)?;
    }
    Ok(())
}

/// The entities, each with the key of its record.
pub(super) fn entities() -> Result<Vec<(String, String)>, DemoError> {
    let entities: Vec<Value> = serde_json::from_str(ENTITIES).map_err(std::io::Error::from)?;
    entities.iter().map(|entity| Ok((key_of(entity)?, entity.to_string()))).collect()
}

#[derive(Deserialize)]
struct Named {
    uid: Uid,
}

#[derive(Deserialize)]
struct Uid {
    #[serde(rename = "type")]
    kind: String,
    id: String,
}

/// The uid of an entity, as Cedar writes it. The story has no name that would have to be escaped.
pub(super) fn key_of(entity: &Value) -> Result<String, DemoError> {
    let Named { uid } = Named::deserialize(entity).map_err(std::io::Error::from)?;
    Ok(format!("{}::\"{}\"", uid.kind, uid.id))
}
