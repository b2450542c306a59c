// The local Slack against @slack/bolt, a client that we did not write. Exits non-zero when an expectation fails.
// Arguments: the JSON line that `diagbot-sandbox slack` prints.
import assert from 'node:assert/strict';
import bolt from '@slack/bolt';

const slack = JSON.parse(process.argv[2]);
const quiet = { debug() {}, info() {}, warn() {}, error() {}, setLevel() {}, getLevel: () => 'error', setName() {} };

// ---- people
const look = async (path) => (await fetch(`${slack.people_url}/people${path}`)).json();
const act = async (what, body) => {
  const answer = await fetch(`${slack.people_url}/people/${what}`, { method: 'POST', body: JSON.stringify(body) });
  const reply = await answer.json();
  assert.equal(answer.status, 200, `${what}: ${reply.error}`);
  return reply;
};
const read = async (channel, contains, query = '') => {
  const found = await look(`/channels/${channel}?plain=1&wait_ms=10000&contains=${encodeURIComponent(contains)}${query}`);
  assert.ok(found.matched, `no message in ${channel} contains ${contains}`);
  return found.messages.filter((message) => message.plain.join('\n').includes(contains));
};

// Asks again until there is an answer, for ten seconds at most.
const until = async (ask) => {
  for (const end = Date.now() + 10000; Date.now() < end;) {
    const found = await ask();
    if (found) return found;
    await new Promise((done) => { setTimeout(done, 10); });
  }
  throw new Error(`never came true: ${ask}`);
};

// ---- the app
const seen = { commands: [], mentions: [] };
let deaf = false;
const app = new bolt.App({
  token: slack.bot_token, appToken: slack.app_token, socketMode: true, logger: quiet,
  clientOptions: { slackApiUrl: `${slack.api_url}/` },
});
const button = (text, action_id, value) => ({ type: 'button', text: { type: 'plain_text', text }, action_id, value });
const section = (text) => ({ type: 'section', text: { type: 'mrkdwn', text } });

app.command('/diag', async ({ ack, command, client, respond }) => {
  seen.commands.push(command);
  if (deaf) return;
  await ack({ text: `started ${command.text}` });
  if (command.text === 'respond') {
    for (let n = 1; n <= 6; n += 1) {
      await respond({ text: `answer ${n}` }).catch((error) => seen.commands.push(error));
    }
  }
  if (command.text.startsWith('run')) {
    const root = await client.chat.postMessage({
      channel: command.channel_id, text: 'running', metadata: { event_type: 'run', event_payload: { run: 'd-1', part: 1, last: true } },
      blocks: [section('*running*'), { type: 'actions', elements: [button('Again', 'again', 'd-1'), button('Cancel', 'cancel', 'd-1')] }],
    });
    await client.chat.postMessage({ channel: command.channel_id, thread_ts: root.ts, text: 'in the thread' });
    await client.chat.update({ channel: command.channel_id, ts: root.ts, text: 'done', blocks: [
      section(`*done* <https://example.com/a?b=1&amp;c=2|the file>`),
      { type: 'actions', elements: [button('Again', 'again', 'd-1'), { type: 'external_select', action_id: 'pod',
        placeholder: { type: 'plain_text', text: 'pod' } }] }] });
  }
});
app.event('app_mention', async ({ event, body, say }) => {
  seen.mentions.push(body.event_id);
  await say({ text: `heard ${event.text}`, thread_ts: event.thread_ts ?? event.ts });
});
app.action('again', async ({ ack, body, action, client, respond }) => {
  await ack();
  await respond({ text: `again ${action.value}`, replace_original: false });
  await client.views.open({ trigger_id: body.trigger_id, view: {
    type: 'modal', callback_id: 'sure', title: { type: 'plain_text', text: 'Sure?' }, submit: { type: 'plain_text', text: 'Yes' },
    blocks: [{ type: 'input', block_id: 'why', label: { type: 'plain_text', text: 'Why' },
      element: { type: 'plain_text_input', action_id: 'text' } }] } });
  const second = await client.views.open({ trigger_id: body.trigger_id, view: {
    type: 'modal', title: { type: 'plain_text', text: 'Twice' }, blocks: [] } }).catch((error) => error);
  assert.equal(second.data.error, 'exchanged_trigger_id');
});
app.options('pod', async ({ ack, options }) => {
  await ack({ options: [{ text: { type: 'plain_text', text: `${options.value}-0` }, value: `${options.value}-0` }] });
});
app.view('sure', async ({ ack, view }) => {
  const why = view.state.values.why.text.value;
  await (why ? ack() : ack({ response_action: 'errors', errors: { why: 'say why' } }));
});
app.shortcut('diag_from_message', async ({ ack, shortcut, respond }) => {
  await ack();
  await respond({ text: `about: ${shortcut.message.text}` });
});

// ---- expectations
const refused = async (name, call) => {
  const error = await call.then(() => assert.fail(`${name} expected`), (failure) => failure);
  assert.equal(error.data?.error, name, String(error));
  return error.data;
};
const expectations = {
  async 'hello opens the connection'() {
    assert.ok((await look('/connections?at_least=1&wait_ms=10000')).matched);
    assert.equal((await app.client.auth.test()).user_id, (await look('')).bot_user);
  },
  async 'a slash command is acknowledged, its answer shown to that person'() {
    const reply = await act('command', { user: 'ada', channel: 'incidents', text: '/diag hello <you> @grace' });
    assert.ok(reply.delivered && reply.ack_ms < 3000);
    const [answer] = await read('incidents', 'started hello');
    assert.equal(answer.ephemeral_to, 'U0ADA00001');
    assert.equal(seen.commands.at(-1).text, 'hello &lt;you&gt; <@U0GRACE001|grace>');
    assert.equal(seen.commands.at(-1).user_name, 'ada');
  },
  async 'a message is posted, answered in its thread and edited in place'() {
    await act('command', { user: 'ada', channel: 'incidents', text: '/diag run' });
    const [root] = await read('incidents', 'the file (https://example.com/a?b=1&c=2)');
    assert.equal(root.history.length, 1);
    assert.equal(root.edited, false, 'an edit with blocks leaves no "(edited)"');
    const [reply] = await read('incidents', 'in the thread', `&thread=${root.ts}`);
    assert.equal(reply.thread_ts, root.ts);
    const channel = 'C0INCIDENT';
    const replies = await app.client.conversations.replies({ channel, ts: root.ts, include_all_metadata: true });
    assert.deepEqual(replies.messages[0].metadata.event_payload, { run: 'd-1', part: 1, last: true });
    assert.equal(replies.messages[0].reply_count, 1);
    const history = await app.client.conversations.history({ channel });
    assert.ok(history.messages.every((message) => message.metadata === undefined));
  },
  async 'a click carries the message; its trigger opens one modal; errors keep it open'() {
    const [root] = await read('incidents', 'the file');
    const place = { user: 'ada', channel: 'incidents', ts: root.ts };
    assert.ok((await act('click', { ...place, label: 'Again' })).delivered);
    await read('incidents', 'again d-1');
    const view_id = await until(async () => (await look('/views?user=ada')).views[0]?.view.id);
    const values = (value) => ({ why: { text: { type: 'plain_text_input', value } } });
    const first = await act('submit', { user: 'ada', view_id, values: values('') });
    assert.equal(first.ack.response_action, 'errors');
    assert.equal((await look('/views?user=ada')).views.length, 1);
    await act('submit', { user: 'ada', view_id, values: values('because') });
    assert.equal((await look('/views?user=ada')).views.length, 0);
    const options = await act('suggest', { ...place, action_id: 'pod', value: 'checkout' });
    assert.equal(options.ack.options[0].value, 'checkout-0');
  },
  async 'a mention becomes an event and is answered in its thread'() {
    const { ts } = await act('message', { user: 'grace', channel: 'incidents', text: '@diag help' });
    const [answer] = await read('incidents', 'heard @diag help', `&thread=${ts}`);
    assert.equal(answer.thread_ts, ts);
  },
  async 'an event may come twice, under the same or a new envelope'() {
    for (const kind of ['duplicate_same_envelope', 'duplicate_new_envelope']) {
      await act('faults', { method: 'events_api', kind });
      const { event_id } = await act('message', { user: 'grace', channel: 'incidents', text: `@diag ${kind}` });
      await read('incidents', `heard @diag ${kind}`, '&count=2');
      assert.equal(seen.mentions.filter((id) => id === event_id).length, 2);
    }
  },
  async 'a message shortcut brings the message'() {
    const [root] = await read('incidents', 'the file');
    await act('shortcut', { user: 'ada', channel: 'incidents', ts: root.ts, callback_id: 'diag_from_message' });
    await read('incidents', 'about: done');
  },
  async 'a response_url answers five times'() {
    await act('command', { user: 'ada', channel: 'random', text: '/diag respond' });
    await read('random', 'answer 5');
    const sixth = await until(() => seen.commands.find((command) => command instanceof Error));
    assert.match(String(sixth), /404/);
  },
  async 'an unacknowledged command tells the person and comes again'() {
    deaf = true;
    const reply = await act('command', { user: 'linus', channel: 'incidents', text: '/diag deaf' });
    assert.equal(reply.error, 'operation_timeout');
    deaf = false;
    await read('incidents', 'operation_timeout', '&as=linus');
    await until(() => seen.commands.filter((command) => command.text === 'deaf').length === 2);
    const [first, again] = seen.commands.filter((command) => command.text === 'deaf');
    assert.equal(first.trigger_id, again.trigger_id);
  },
  async 'a full channel answers 429 with Retry-After, and the SDK comes again'() {
    await Promise.all([1, 2, 3, 4, 5].map((n) => app.client.chat.postMessage({ channel: 'C0SHOPONCL', text: `burst ${n}` })));
    const { calls } = await look('/log?method=chat.postMessage');
    assert.ok(calls.some((call) => call.status === 429));
    await read('shop-oncall', 'burst', '&count=5');
  },
  async 'refusals have the names that Slack gives them'() {
    const post = (channel, more) => app.client.chat.postMessage({ channel, text: 'x', ...more });
    await refused('not_in_channel', post('C0RANDOM01'));
    await refused('channel_not_found', post('C0SECRETS1'));
    await refused('is_archived', post('C0ARCHIVED'));
    const long = await refused('invalid_blocks', post('C0WARROOM1', { blocks: [section('x'.repeat(3001))] }));
    assert.match(long.response_metadata.messages[0], /must be less than 3001 characters \[json-pointer:\/blocks\/0\/text\/text\]/);
    await refused('msg_blocks_too_long', post('C0WARROOM1', { blocks: Array(5).fill(section('x'.repeat(2900))) }));
    await refused('no_text', app.client.chat.postMessage({ channel: 'C0WARROOM1', text: '' }));
    await refused('message_not_found', app.client.chat.update({ channel: 'C0WARROOM1', ts: '1.000001', text: 'x' }));
    await refused('invalid_trigger_id', app.client.views.open({ trigger_id: 'none', view: { type: 'modal',
      title: { type: 'plain_text', text: 'x' }, blocks: [] } }));
    await refused('unknown_method', app.client.apiCall('chat.postTelegram'));
  },
  async 'people, groups and channels are described'() {
    const ada = await app.client.users.info({ user: 'U0ADA00001' });
    assert.equal(ada.user.profile.email, 'ada@example.com');
    assert.equal((await app.client.users.lookupByEmail({ email: 'grace@example.com' })).user.id, 'U0GRACE001');
    assert.equal((await app.client.users.info({ user: 'U0SAM00001' })).user.is_stranger, true);
    const groups = await app.client.usergroups.list({ include_users: true });
    assert.deepEqual(groups.usergroups.map((group) => group.handle), ['sre', 'oncall']);
    assert.equal((await app.client.conversations.info({ channel: 'C0PARTNERS' })).channel.is_ext_shared, true);
    assert.ok((await app.client.conversations.members({ channel: 'C0WARROOM1' })).members.includes('U0ADA00001'));
    const listed = await app.client.conversations.list({ types: 'public_channel,private_channel' });
    assert.ok(!listed.channels.some((channel) => channel.name === 'secrets'));
    const direct = await app.client.conversations.open({ users: 'U0ADA00001' });
    await app.client.chat.postMessage({ channel: direct.channel.id, text: 'between us' });
    await read(encodeURIComponent('@ada'), 'between us');
  },
  async 'a file is uploaded in three steps'() {
    await app.client.filesUploadV2({ channel_id: 'C0WARROOM1', filename: 'a.txt', content: 'hello', initial_comment: 'a file' });
    await read('war-room', '[file] a.txt');
  },
  async 'a disconnect is followed by a new connection'() {
    for (const reason of ['warning', 'refresh_requested']) {
      const { opened } = await look('/connections');
      await act('disconnect', { reason });
      assert.ok((await look(`/connections?opened=${opened + 1}&at_least=1&wait_ms=30000`)).matched, reason);
      assert.ok((await act('command', { user: 'ada', channel: 'incidents', text: `/diag ${reason}` })).delivered);
    }
  },
  async 'a connection that breaks or goes silent is replaced'() {
    for (const kind of ['break', 'half_open']) {
      const { opened } = await look('/connections');
      await act('outage', { kind });
      assert.ok((await look(`/connections?opened=${opened + 1}&at_least=1&wait_ms=60000`)).matched, kind);
    }
  },
};

await app.start();
let failed = 0;
for (const [name, expectation] of Object.entries(expectations)) {
  try {
    await expectation();
    console.log(`ok      @slack/bolt: ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  @slack/bolt: ${name}\n${error.stack}`);
  }
}
await app.stop();
process.exit(failed === 0 ? 0 : 1);
