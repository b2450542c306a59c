"""The local Slack against Slack's Python SDK, a client that we did not write. Exits non-zero when an expectation fails.

Argument: the JSON line that `diagbot-sandbox slack` prints.
"""

import json
import logging
import sys
import threading
import time
import traceback
import urllib.error
import urllib.parse
import urllib.request

from slack_bolt import App
from slack_bolt.adapter.socket_mode import SocketModeHandler
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError

SLACK = json.loads(sys.argv[1])
logging.disable(logging.CRITICAL)


def look(path):
    with urllib.request.urlopen(SLACK["people_url"] + "/people" + path, timeout=70) as answer:
        return json.load(answer)


def act(what, **body):
    request = urllib.request.Request(f"{SLACK['people_url']}/people/{what}", json.dumps(body).encode(), method="POST")
    try:
        with urllib.request.urlopen(request, timeout=70) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{what}: {error.read().decode()}") from error


def read(channel, contains, **query):
    query = urllib.parse.urlencode({"plain": 1, "wait_ms": 10000, "contains": contains, **query})
    found = look(f"/channels/{channel}?{query}")
    assert found["matched"], f"no message in {channel} contains {contains}"
    return [message for message in found["messages"] if contains in "\n".join(message["plain"])]


client = WebClient(SLACK["bot_token"], base_url=SLACK["api_url"] + "/")
app = App(client=client, process_before_response=False)
submitted = threading.Event()


@app.command("/diag")
def command(ack, command, say):
    ack(f"started {command['text']}")
    say(
        text="choose",
        blocks=[
            {"type": "header", "text": {"type": "plain_text", "text": "Several pods"}},
            {
                "type": "actions",
                "elements": [
                    {"type": "button", "text": {"type": "plain_text", "text": name}, "action_id": f"pod-{name}", "value": name}
                    for name in ("a", "b")
                ],
            },
        ],
    )


@app.event("app_mention")
def mention(event, say):
    say(text=f"heard {event['text']}", thread_ts=event.get("thread_ts", event["ts"]))


@app.action("pod-b")
def click(ack, body, client, respond):
    ack()
    respond(text=f"chose {body['actions'][0]['value']}", replace_original=True)
    client.views_open(
        trigger_id=body["trigger_id"],
        view={
            "type": "modal",
            "callback_id": "sure",
            "title": {"type": "plain_text", "text": "Sure?"},
            "submit": {"type": "plain_text", "text": "Yes"},
            "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": "*really?*"}}],
        },
    )


@app.view("sure")
def submission(ack):
    ack(response_action="clear")
    submitted.set()


def hello_opens_the_connection():
    assert look("/connections?at_least=1&wait_ms=10000")["matched"]
    assert client.auth_test()["ok"]
    assert "chat:write" in client.auth_test().headers["x-oauth-scopes"]


def a_slash_command_is_acknowledged():
    reply = act("command", user="grace", channel="shop-oncall", text="/diag jstack a")
    assert reply["delivered"] and reply["ack_ms"] < 3000, reply
    assert read("shop-oncall", "started jstack a")[0]["ephemeral_to"] == "U0GRACE001"
    read("shop-oncall", "Several pods")


def a_click_replaces_the_message_and_opens_a_modal():
    message = read("shop-oncall", "Several pods")[0]
    assert act("click", user="grace", channel="shop-oncall", ts=message["ts"], action_id="pod-b")["delivered"]
    replaced = read("shop-oncall", "chose b")[0]
    assert replaced["ts"] == message["ts"] and replaced["blocks"] == [], replaced
    end = time.monotonic() + 10
    while not (views := look("/views?user=grace")["views"]):
        assert time.monotonic() < end, "no modal was opened"
        time.sleep(0.01)
    act("submit", user="grace", view_id=views[0]["view"]["id"])
    assert submitted.wait(10) and look("/views?user=grace")["views"] == []


def a_mention_in_a_thread_is_answered_there():
    root = act("message", user="ada", channel="shop-oncall", text="it is slow")["ts"]
    act("message", user="ada", channel="shop-oncall", text="@diag sockets", thread_ts=root)
    assert read("shop-oncall", "heard @diag sockets", thread=root)[0]["thread_ts"] == root


def messages_are_posted_edited_and_removed():
    channel = "C0WARROOM1"
    posted = client.chat_postMessage(channel=channel, text="one", blocks=[{"type": "divider"}])
    client.chat_update(channel=channel, ts=posted["ts"], text="two")
    edited = read("war-room", "two")[0]
    assert edited["edited"] and edited["blocks"] == [], "text without blocks removes the blocks"
    link = client.chat_getPermalink(channel=channel, message_ts=posted["ts"])["permalink"]
    assert posted["ts"].replace(".", "") in link
    client.chat_postEphemeral(channel=channel, user="U0ADA00001", text="psst")
    assert read("war-room", "psst")[0]["ephemeral_to"] == "U0ADA00001"
    client.chat_delete(channel=channel, ts=posted["ts"])
    assert all(message["ts"] != posted["ts"] for message in look("/channels/war-room")["messages"])


def refusals_reach_the_sdk():
    for channel, name in (("C0RANDOM01", "not_in_channel"), ("C0SECRETS1", "channel_not_found")):
        try:
            client.chat_postMessage(channel=channel, text="x")
            raise AssertionError(f"{name} expected")
        except SlackApiError as error:
            assert error.response["error"] == name, error
    act("faults", method="auth.test", kind="rate_limited", retry_after=7)
    try:
        client.auth_test()
        raise AssertionError("429 expected")
    except SlackApiError as error:
        assert error.response.status_code == 429 and error.response.headers["retry-after"] == "7", error
    try:
        WebClient("xoxb-wrong", base_url=SLACK["api_url"] + "/").auth_test()
        raise AssertionError("invalid_auth expected")
    except SlackApiError as error:
        assert error.response["error"] == "invalid_auth", error


def a_file_is_uploaded():
    client.files_upload_v2(channel="C0WARROOM1", filename="b.txt", content="hello", title="b")
    read("war-room", "[file] b.txt")


def a_disconnect_is_followed_by_a_new_connection():
    for reason in ("warning", "refresh_requested"):
        opened = look("/connections")["opened"]
        act("disconnect", reason=reason)
        assert look(f"/connections?opened={opened + 1}&at_least=1&wait_ms=60000")["matched"], reason
    # The old connection may take one with it to its grave, as at Slack itself; people type again.
    assert any(act("command", user="grace", channel="shop-oncall", text="/diag after")["delivered"] for _ in range(3))


handler = SocketModeHandler(app, SLACK["app_token"], web_client=client)
handler.connect()
failed = 0
for expectation in (
    hello_opens_the_connection,
    a_slash_command_is_acknowledged,
    a_click_replaces_the_message_and_opens_a_modal,
    a_mention_in_a_thread_is_answered_there,
    messages_are_posted_edited_and_removed,
    refusals_reach_the_sdk,
    a_file_is_uploaded,
    a_disconnect_is_followed_by_a_new_connection,
):
    name = expectation.__name__.replace("_", " ")
    try:
        expectation()
        print(f"ok      slack_bolt: {name}", flush=True)
    except Exception:  # every failure is reported, then the next expectation is tried
        failed += 1
        print(f"FAILED  slack_bolt: {name}\n{traceback.format_exc()}", flush=True)
handler.close()
sys.exit(1 if failed else 0)
