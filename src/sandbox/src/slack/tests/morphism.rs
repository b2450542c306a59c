//! The local Slack against slack-morphism, a client that we did not write: Web API, Block Kit types, and its own Socket Mode loop.

use std::sync::Arc;

use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::json;
use slack_morphism::prelude::*;
use tokio::sync::mpsc;

use super::{super::SlackConfig, Bench};

type Connector = SlackClientHyperConnector<HttpConnector>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Where the callbacks, which are bare functions, tell what they heard.
struct Heard(mpsc::Sender<String>);

async fn hear(states: SlackClientEventsUserState, what: String) {
    let storage = states.read().await;
    let heard = storage
        .get_user_state::<Heard>()
        .expect("the state was given to the listener");
    heard.0.send(what).await.expect("the test listens");
}

async fn on_command(
    event: SlackCommandEvent,
    _client: Arc<SlackClient<Connector>>,
    states: SlackClientEventsUserState,
) -> Result<SlackCommandEventResponse, Failure> {
    hear(
        states,
        format!("command {} {}", event.command, event.text.unwrap_or_default()),
    )
    .await;
    Ok(SlackCommandEventResponse::new(
        SlackMessageContent::new().with_text("started".to_owned()),
    ))
}

async fn on_push(
    event: SlackPushEventCallback,
    _client: Arc<SlackClient<Connector>>,
    states: SlackClientEventsUserState,
) -> Result<(), Failure> {
    let what = match event.event {
        SlackEventCallbackBody::AppMention(mention) => format!("mention by {}", mention.user),
        other => format!("{other:?}"),
    };
    hear(states, what).await;
    Ok(())
}

async fn on_interaction(
    event: SlackInteractionEvent,
    _client: Arc<SlackClient<Connector>>,
    states: SlackClientEventsUserState,
) -> Result<SlackInteractionResponse, Failure> {
    let what = match event {
        SlackInteractionEvent::BlockActions(click) => {
            let action = click.actions.unwrap_or_default().remove(0);
            format!("click {} {}", action.action_id, action.value.unwrap_or_default())
        }
        SlackInteractionEvent::MessageAction(shortcut) => format!("shortcut {}", shortcut.callback_id),
        other => format!("{other:?}"),
    };
    hear(states, what).await;
    Ok(SlackInteractionResponse::Empty)
}

fn client(bench: &Bench) -> Arc<SlackClient<Connector>> {
    let connector = SlackClientHyperConnector::with_connector(HttpConnector::new());
    Arc::new(SlackClient::new(connector.with_slack_api_url(&bench.server.api_url())))
}

#[tokio::test]
async fn its_web_api_calls_are_understood_and_its_types_parse_the_answers() {
    let bench = Bench::new(SlackConfig::default()).await;
    let (client, token) = (client(&bench), SlackApiToken::new(bench.server.bot_token().into()));
    let session = client.open_session(&token);
    assert_eq!(
        session.auth_test().await.expect("auth.test").user_id.to_string(),
        "U0DIAG0001"
    );
    let ada = session
        .users_info(&SlackApiUsersInfoRequest::new("U0ADA00001".into()))
        .await
        .expect("users.info")
        .user;
    assert_eq!(
        ada.profile.and_then(|profile| profile.email).map(|email| email.0),
        Some("ada@example.com".to_owned())
    );
    let channel = SlackApiConversationsInfoRequest::new("C0PARTNERS".into());
    let channel = session
        .conversations_info(&channel)
        .await
        .expect("conversations.info")
        .channel;
    assert_eq!(channel.flags.is_member, Some(true));
    let members = SlackApiUserGroupsUsersListRequest::new("S0ONCALL01".into());
    assert_eq!(
        session
            .usergroups_users_list(&members)
            .await
            .expect("usergroups.users.list")
            .users
            .len(),
        2
    );

    let blocks = slack_blocks![
        some_into(SlackSectionBlock::new().with_text(md!("*hello*"))),
        some_into(SlackDividerBlock::new())
    ];
    let content = SlackMessageContent::new().with_text("hello".into()).with_blocks(blocks);
    let post = SlackApiChatPostMessageRequest::new("C0INCIDENT".into(), content);
    let posted = session.chat_post_message(&post).await.expect("chat.postMessage");
    let text = SlackMessageContent::new().with_text("done".into());
    let update = SlackApiChatUpdateRequest::new("C0INCIDENT".into(), text, posted.ts.clone());
    session.chat_update(&update).await.expect("chat.update");
    let replies = SlackApiConversationsRepliesRequest::new("C0INCIDENT".into(), posted.ts);
    let replies = session
        .conversations_replies(&replies)
        .await
        .expect("conversations.replies");
    assert_eq!(replies.messages[0].content.text.as_deref(), Some("done"));
    assert_eq!(
        replies.messages[0].content.blocks, None,
        "text without blocks removes the blocks"
    );

    let nowhere =
        SlackApiChatPostMessageRequest::new("C0RANDOM01".into(), SlackMessageContent::new().with_text("x".into()));
    match session.chat_post_message(&nowhere).await {
        Err(errors::SlackClientError::ApiError(error)) => assert_eq!(error.code, "not_in_channel"),
        other => panic!("not_in_channel expected, not {other:?}"),
    }
    bench
        .act(
            "faults",
            json!({"method": "auth.test", "kind": "rate_limited", "retry_after": 7}),
        )
        .await;
    match session.auth_test().await {
        Err(errors::SlackClientError::RateLimitError(error)) => {
            assert_eq!(error.retry_after, Some(std::time::Duration::from_secs(7)));
        }
        other => panic!("429 expected, not {other:?}"),
    }
    bench.server.stop().await;
}

#[tokio::test]
async fn its_socket_mode_loop_receives_commands_mentions_clicks_and_shortcuts() {
    let bench = Bench::new(SlackConfig::default()).await;
    let (heard, mut hears) = mpsc::channel(16);
    let callbacks = SlackSocketModeListenerCallbacks::new()
        .with_command_events(on_command)
        .with_push_events(on_push)
        .with_interaction_events(on_interaction);
    let environment = SlackClientEventsListenerEnvironment::new(client(&bench)).with_user_state(Heard(heard));
    let config = SlackClientSocketModeConfig::new().with_max_connections_count(1);
    let listener = SlackClientSocketModeListener::new(&config, Arc::new(environment), callbacks);
    listener
        .listen_for(&SlackApiToken::new(bench.server.app_token().into()))
        .await
        .expect("registered");
    listener.start().await;
    assert_eq!(
        bench.look("/connections?at_least=1&wait_ms=20000").await["matched"],
        true
    );

    let (user, channel) = ("ada", "incidents");
    let sent = bench
        .act(
            "command",
            json!({"user": user, "channel": channel, "text": "/diag jstack checkout"}),
        )
        .await;
    assert_eq!(sent["ack"]["text"], "started", "{sent}");
    assert_eq!(hears.recv().await.as_deref(), Some("command /diag jstack checkout"));
    bench
        .act(
            "message",
            json!({"user": user, "channel": channel, "text": "@diag help"}),
        )
        .await;
    assert_eq!(hears.recv().await.as_deref(), Some("mention by U0ADA00001"));

    let button =
        json!({"type": "button", "text": {"type": "plain_text", "text": "Go"}, "action_id": "go", "value": "d-1"});
    let args = json!({"channel": "C0INCIDENT", "text": "x", "blocks": [{"type": "actions", "elements": [button]}]});
    let (_, posted) = bench.api("chat.postMessage", args).await.expect("an answer");
    let place = json!({"user": user, "channel": channel, "ts": posted["ts"], "action_id": "go", "callback_id": "diag_from_message"});
    bench.act("click", place.clone()).await;
    assert_eq!(hears.recv().await.as_deref(), Some("click go d-1"));
    bench.act("shortcut", place).await;
    assert_eq!(hears.recv().await.as_deref(), Some("shortcut diag_from_message"));
    listener.shutdown().await;
    bench.server.stop().await;
}
