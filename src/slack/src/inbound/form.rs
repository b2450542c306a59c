//! What comes back from a form: what was typed so far, what was chosen, what was submitted.

use std::collections::BTreeMap;

use serde_json::Value;

use super::read::first;

/// A form as Slack sends it back: everything in it was typed or chosen by the person, or put there by us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FormState {
    /// `view.id`: new for each form that is opened.
    pub view: String,
    /// `view.hash`: against updates that cross.
    pub hash: String,
    /// Which form of ours.
    pub callback: String,
    /// What we wrote into it (`private_metadata`).
    pub metadata: String,
    /// Value of each field by its block; empty fields are left out.
    pub values: BTreeMap<String, String>,
}

impl FormState {
    pub(super) fn read(payload: &Value) -> Self {
        let view = &payload["view"];
        let text = |pointer: &str| first(view, &[pointer]).unwrap_or_default();
        let blocks = view["state"]["values"].as_object();
        let values = blocks.into_iter().flatten().filter_map(|(block, actions)| {
            let field = actions.as_object()?.values().next()?;
            let value = first(field, &["/selected_option/value", "/value"])?;
            Some((block.clone(), value))
        });
        Self {
            view: text("/id"),
            hash: text("/hash"),
            callback: text("/callback_id"),
            metadata: text("/private_metadata"),
            values: values.collect(),
        }
    }
}
