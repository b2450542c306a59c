//! What the bot sends to PagerDuty, and what the sandbox's PagerDuty answers, held against the schema that PagerDuty publishes.
//!
//! The schema (repository `PagerDuty/api-schema`, `reference/REST/openapiv3.json`) names no licence, so no part of it is kept
//! here: `tests/contract/pagerduty.sh` brings it.

use diagbot_sandbox::{pagerduty::Exchange, wait};
use serde_json::Value;

use crate::{
    product::{LONGEST, Product},
    triggers::{incident, pagerduty, told},
};

/// The published API.
struct Published(Value);

impl Published {
    fn read() -> Self {
        let path = std::env::var_os("PAGERDUTY_SCHEMA").expect("PAGERDUTY_SCHEMA names the published schema");
        Self(serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
    }

    /// The thing itself, or what it refers to.
    fn follow<'a>(&'a self, thing: &'a Value) -> &'a Value {
        match thing["$ref"].as_str() {
            Some(place) => self.0.pointer(place.strip_prefix('#').unwrap()).unwrap(),
            None => thing,
        }
    }

    /// Where a value does not fit a schema.
    fn misfits(&self, schema: &Value, value: &Value, place: &str) -> Vec<String> {
        let schema = self.follow(schema);
        let mut found = Vec::new();
        let is = |kind: &str| match kind {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_i64(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            _ => false,
        };
        if schema["type"].as_str().is_some_and(|kind| !is(kind)) {
            found.push(format!("{place} is no {}: {value}", schema["type"]));
        }
        if schema["enum"].as_array().is_some_and(|values| !values.contains(value)) {
            found.push(format!("{place} is none of {}: {value}", schema["enum"]));
        }
        for name in schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if value.get(name).is_none() {
                found.push(format!("{place}.{name} is missing"));
            }
        }
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            if let Some(value) = value.get(name) {
                found.extend(self.misfits(inner, value, &format!("{place}.{name}")));
            }
        }
        for part in schema["allOf"].as_array().into_iter().flatten() {
            found.extend(self.misfits(part, value, place));
        }
        for item in value
            .as_array()
            .into_iter()
            .flatten()
            .filter(|_| schema["items"].is_object())
        {
            found.extend(self.misfits(&schema["items"], item, &format!("{place}[]")));
        }
        found
    }

    /// Where an exchange is not as published.
    fn faults(&self, exchange: &Exchange) -> Vec<String> {
        let parts: Vec<&str> = exchange.path.split('/').collect();
        let ["", "incidents", _, "notes"] = parts[..] else {
            return vec![format!("{} is not among what is looked at", exchange.path)];
        };
        let operation = &self.0["paths"]["/incidents/{id}/notes"][exchange.method.as_str().to_lowercase()];
        if !operation.is_object() {
            return vec![format!("{} {} is not published", exchange.method, exchange.path)];
        }
        let mut found = Vec::new();
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let parameter = self.follow(parameter);
            if parameter["in"] != "header" {
                continue;
            }
            let name = parameter["name"].as_str().unwrap();
            let sent = exchange.headers.get(name).and_then(|value| value.to_str().ok());
            match sent {
                None if parameter["required"] == true => found.push(format!("the header {name} is missing")),
                None => {}
                Some(sent) => {
                    let schema = self.follow(&parameter["schema"]);
                    found.extend(self.misfits(schema, &Value::from(sent), name));
                    // Accept is the version: any other would be another API.
                    if let Some(default) = schema["default"].as_str().filter(|default| *default != sent) {
                        found.push(format!("{name} is `{sent}`, not `{default}`"));
                    }
                    if schema["format"] == "email" && !sent.contains('@') {
                        found.push(format!("{name} is no address: {sent}"));
                    }
                }
            }
        }
        let json = "/content/application~1json/schema";
        if let Some(schema) = operation["requestBody"].pointer(json) {
            let body = serde_json::from_slice(&exchange.body).unwrap_or_default();
            found.extend(self.misfits(schema, &body, "body"));
        }
        let answer = self.follow(&operation["responses"][exchange.status.as_str()]);
        if let Some(schema) = answer.pointer(json) {
            found.extend(self.misfits(schema, &exchange.answer, "answer"));
        }
        found
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the schema that PagerDuty publishes"]
async fn notes_are_sent_and_answered_as_pagerduty_publishes() {
    let published = Published::read();
    let product = Product::start().await;
    pagerduty(&product, &incident("01EVENT", "PGR0VU2")).await;
    told(&product, 1).await;
    let exchanges = wait::until(LONGEST, "the note is written", || async {
        let all = product.installation.pagerduty().exchanges();
        Ok(all.iter().any(|one| one.method == http::Method::POST).then_some(all))
    })
    .await
    .unwrap();
    for exchange in &exchanges {
        println!("{} {} {}", exchange.method, exchange.path, exchange.status);
        assert_eq!(published.faults(exchange), [""; 0], "{exchange:?}");
    }
    // The check can fail.
    let mut wrong = exchanges.last().unwrap().clone();
    wrong.headers.remove(http::header::FROM);
    wrong
        .headers
        .insert(http::header::ACCEPT, http::HeaderValue::from_static("application/json"));
    wrong.body = r#"{"note":{"text":"x"}}"#.into();
    let faults = published.faults(&wrong);
    assert_eq!(faults.len(), 3, "{faults:?}");
    product.stop().await;
}
