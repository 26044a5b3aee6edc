//! The JSON schema of a task's completions.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use crate::grammar::{Form, Kind, Task};

impl Task {
    /// The JSON schema that every completion keeps to, and no more than the slots allow: an object for each kind, with
    /// a list of values for each slot. Tasks whose completions are texts have none.
    ///
    /// Properties are in the order of completions, which `siskin compile --grammar` keeps.
    pub fn schema(&self) -> Option<String> {
        let objects = || self.kinds.iter().map(|kind| self.object_schema(kind)).collect::<Vec<_>>().join(",\n");
        (self.form == Form::Json).then(|| format!("{{\"anyOf\": [\n{}\n]}}\n", objects()))
    }

    fn object_schema(&self, kind: &Kind) -> String {
        let mut properties = vec![format!("\"intent\": {{\"const\": {}}}", Json::from(kind.name.as_str()))];
        let mut required = vec!["intent".to_owned()];
        for (name, is_required) in &kind.object_slots {
            let Some(slot) = self.slots.get(name) else { continue };
            let fields = slot.entries.first().map(|entry| entry.fields.len()).unwrap_or(0);
            for field_idx in 0..fields {
                let field = slot.entries[0].fields[field_idx].0;
                let key = if field.is_empty() { name.as_str() } else { field };
                let mut seen = BTreeSet::new();
                let values = slot.entries.iter().map(|entry| entry.fields[field_idx].1.json().to_string());
                let values: Vec<String> = values.filter(|value| seen.insert(value.clone())).collect();
                properties.push(format!("{}: {{\"enum\": [{}]}}", Json::from(key), values.join(", ")));
                if *is_required {
                    required.push(key.to_owned());
                }
            }
        }
        format!(
            "{{\"type\": \"object\",\n \"properties\": {{{}}},\n \"required\": {},\n \"additionalProperties\": false}}",
            properties.join(",\n  "),
            Json::from(required),
        )
    }
}
