use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn read(kind: &str, payload: Value) -> Inbound {
    Inbound::read(&Envelope {
        envelope_id: "e".into(),
        kind: kind.into(),
        accepts_response_payload: true,
        payload,
    })
}

#[test]
fn a_click_of_an_organisation_wide_installation_does_not_vanish() {
    let payload = json!({
        "type": "block_actions", "team": null, "enterprise": {"id": "E1"}, "user": {"id": "U1", "team_id": "T1"},
        "channel": {"id": "C1"}, "container": {"message_ts": "2.0", "thread_ts": "1.0", "channel_id": "C1"},
        "message": {"ts": "2.0", "metadata": {"event_type": "x", "event_payload": {"n": 3}}},
        "actions": [{"action_id": "diag.cancel", "value": "d-0123456789abcdef"}, {"type": "odd"}],
        "response_url": "https://hooks.slack.com/secret",
    });
    let Inbound::Click(click) = read("interactive", payload) else {
        panic!("no click");
    };
    assert_eq!((click.by.team.as_str(), click.by.user.as_str()), ("T1", "U1"));
    assert_eq!(click.thread_ts.as_deref(), Some("1.0"));
    assert_eq!(click.actions.len(), 1);
    assert!(!format!("{click:?}").contains("secret"));
}

#[test]
fn a_mention_in_a_thread_is_read_and_bots_are_not_answered() {
    let event = |extra: Value| {
        let mut payload = json!({
            "team_id": "T1", "event_id": "Ev1", "authorizations": [{"user_id": "UBOT"}],
            "event": {"type": "app_mention", "user": "U1", "team": "T1", "channel": "C1", "ts": "2.0", "thread_ts": "1.0",
                "text": "<@UBOT> list"},
        });
        payload["event"]
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        read("events_api", payload)
    };
    let Inbound::Mention(mention) = event(json!({})) else {
        panic!("no mention");
    };
    assert_eq!(mention.thread_ts.as_deref(), Some("1.0"));
    assert_eq!(mention.bot.as_deref(), Some("UBOT"));
    assert!(matches!(event(json!({"bot_id": "B1"})), Inbound::Ignored));
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        prop::sample::select(vec!["block_actions", "app_mention", "U1", "", "shortcut"]).prop_map(Value::from),
    ];
    let keys = vec![
        "type",
        "event",
        "user",
        "id",
        "team",
        "team_id",
        "user_id",
        "actions",
        "container",
        "channel",
        "trigger_id",
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(prop::sample::select(keys.clone()), inner, 0..6)
                .prop_map(|map| map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<Value>()),
        ]
    })
}

proptest! {
    #[test]
    fn reading_is_total(
        kind in prop::sample::select(vec!["slash_commands", "events_api", "interactive", "new"]),
        payload in values(),
    ) {
        let _ = read(kind, payload);
    }
}
