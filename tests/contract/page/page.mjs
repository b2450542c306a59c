// The sandbox's page in a headless browser, with an echo bot on @slack/bolt behind it. Exits non-zero when an expectation fails.
// Arguments: the JSON line that `diagbot-sandbox slack` prints, the browser, and optionally a folder for screenshots.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import bolt from '@slack/bolt';
import { chromium } from 'playwright-core';

const slack = JSON.parse(process.argv[2]);
const [browserPath, folder] = process.argv.slice(3);
const quiet = { debug() {}, info() {}, warn() {}, error() {}, setLevel() {}, getLevel: () => 'error', setName() {} };

const app = new bolt.App({
  token: slack.bot_token, appToken: slack.app_token, socketMode: true, logger: quiet,
  clientOptions: { slackApiUrl: `${slack.api_url}/` },
});
const text = (type, content) => ({ type, text: content });
const mrkdwn = (content) => text('mrkdwn', content);
const plain = (content) => text('plain_text', content);
const hostile = '<img src=x onerror="document.title=\'owned\'">&lt;script&gt;document.title="owned"&lt;/script&gt;';
app.command('/diag', async ({ ack, command, client }) => {
  await ack({ text: `Started *${command.text}*` });
  const at = Math.floor(Date.parse('2026-11-22T12:00:00Z') / 1000);
  const { ts } = await client.chat.postMessage({
    channel: command.channel_id, text: 'echo', unfurl_links: false,
    blocks: [
      { type: 'header', text: plain(`echo: ${command.text}`) },
      { type: 'section', text: mrkdwn(`*checkout* in \`shop\`, asked for by <@${command.user_id}>\n> ${hostile}\n\`\`\`"main" #1 prio=5\n  at a.b.C&lt;T&gt;\`\`\``),
        accessory: { type: 'button', text: plain('Details'), action_id: 'details' } },
      { type: 'section', fields: [mrkdwn('*Size*\n12.3 MiB'), mrkdwn(`*Expires*\n<!date^${at}^{date_short} {time}|2026-11-22 12:00 UTC>`)] },
      { type: 'divider' },
      { type: 'context', elements: [mrkdwn('run `d-abc-def` · <https://example.com/dump?a=1&amp;b=2|threads.txt> · <javascript:alert(1)|no link>')] },
      { type: 'actions', elements: [
        { type: 'button', style: 'primary', text: plain('Run again'), action_id: 'again', value: 'd-1' },
        { type: 'button', style: 'danger', text: plain('Cancel'), action_id: 'cancel', value: 'd-1',
          confirm: { title: plain('Cancel the run?'), text: mrkdwn('It *cannot* be resumed.'), confirm: plain('Cancel it'), deny: plain('Keep it') } },
        { type: 'static_select', action_id: 'pod', placeholder: plain('Another pod'), options: [{ text: plain('ledger-0'), value: 'ledger-0' }] },
      ] },
      { type: 'video', alt_text: 'not for this page' },
    ],
  });
  await client.chat.postMessage({ channel: command.channel_id, thread_ts: ts, text: 'threads.txt is ready :white_check_mark:' });
});
app.event('app_mention', async ({ event, say }) => { await say({ text: `heard: ${event.text}`, thread_ts: event.thread_ts ?? event.ts }); });
const answer = (id) => app.action(id, async ({ ack, action, respond }) => {
  await ack();
  await respond({ text: `clicked ${id} ${action.value ?? action.selected_option?.value ?? ''}`, replace_original: false });
});
['again', 'cancel', 'pod', 'details'].forEach(answer);

await app.start();
const browser = await chromium.launch({ executablePath: browserPath, args: ['--no-sandbox'] });
const page = await browser.newPage({ viewport: { width: 1100, height: 860 } });
const faults = [];
page.on('pageerror', (error) => faults.push(String(error)));
page.on('console', (message) => { if (message.type() === 'error') faults.push(message.text()); });
const picture = (name) => (folder ? page.screenshot({ path: join(folder, `${name}.png`) }) : null);
page.setDefaultTimeout(15000);

const expectations = {
  async 'a typed command is acknowledged and the echo appears'() {
    await page.goto(slack.people_url);
    await page.getByText('the bot is connected').waitFor();
    await page.getByLabel('Message', { exact: true }).fill('/diag jstack checkout');
    await page.keyboard.press('Enter');
    await page.locator('article.ephemeral', { hasText: 'Started jstack checkout' }).getByText('Only visible to you').waitFor();
    await page.getByText('echo: jstack checkout').waitFor();
    await page.locator('article.reply', { hasText: 'threads.txt is ready ✅' }).waitFor();
    await picture('echo');
  },
  async 'blocks look like blocks, and hostile text stays text'() {
    const echo = page.locator('article', { hasText: 'echo: jstack checkout' });
    assert.equal(await echo.locator('strong', { hasText: 'checkout' }).count(), 1);
    assert.equal(await echo.locator('.mention').innerText(), '@ada');
    assert.match(await echo.locator('pre').innerText(), /at a\.b\.C<T>/);
    assert.match(await echo.locator('.fields').innerText(), /Nov 22, 2026/);
    assert.equal(await echo.getByRole('link', { name: 'threads.txt' }).getAttribute('href'), 'https://example.com/dump?a=1&b=2');
    assert.equal(await echo.getByRole('link').count(), 1, 'a javascript: address is no link');
    assert.equal(await page.locator('img, article script').count(), 0);
    assert.notEqual(await page.title(), 'owned');
    assert.equal(await echo.locator('.unknown').innerText(), 'This page does not show blocks of type “video”.');
  },
  async 'a button is clicked, and one with a question asks first'() {
    await page.getByRole('button', { name: 'Run again' }).click();
    await page.getByText('clicked again d-1').waitFor();
    await page.getByRole('button', { name: 'Cancel', exact: true }).click();
    await page.getByText('It cannot be resumed.').waitFor();
    await picture('question');
    await page.getByRole('button', { name: 'Keep it' }).click();
    await page.getByRole('button', { name: 'Cancel', exact: true }).click();
    await page.getByRole('button', { name: 'Cancel it' }).click();
    await page.getByText('clicked cancel d-1').waitFor();
    await page.locator('article select').selectOption('ledger-0');
    await page.getByText('clicked pod ledger-0').waitFor();
  },
  async 'a reply in the thread mentions the bot and is answered there'() {
    const echo = page.locator('article', { hasText: 'echo: jstack checkout' });
    await echo.hover();
    await echo.getByRole('button', { name: 'Reply in thread' }).click();
    await page.getByLabel('Message', { exact: true }).fill('@diag sockets');
    await page.getByRole('button', { name: 'Send' }).click();
    await page.locator('article.reply', { hasText: 'heard: @diag sockets' }).waitFor();
    await page.getByLabel('Message', { exact: true }).fill('/diag help');
    await page.keyboard.press('Enter');
    await page.getByText('Slash commands cannot be used in threads').waitFor();
    await picture('thread');
  },
  async 'another person does not see what was only for ada'() {
    await page.getByLabel('You are').selectOption('grace');
    await page.locator('article', { hasText: 'heard: @diag sockets' }).waitFor();
    assert.equal(await page.getByText('Started jstack checkout').count(), 0);
    await page.getByRole('button', { name: 'random' }).click();
    await page.getByText('the bot is not in this channel').waitFor();
    await page.getByText('Nothing here yet').waitFor();
  },
  async 'the page made no error'() {
    assert.deepEqual(faults, []);
  },
};
let failed = 0;
for (const [name, expectation] of Object.entries(expectations)) {
  try {
    await expectation();
    console.log(`ok      page: ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  page: ${name}\n${error.stack}`);
    await picture('failed');
  }
}
await browser.close();
await app.stop();
process.exit(failed === 0 ? 0 : 1);
