// The page in a headless browser with the real bot behind it: what a person sees and clicks after a command.
// Arguments: the JSON line that `diagbot-sandbox --json` prints, the browser, and optionally a folder for screenshots.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const sandbox = JSON.parse(process.argv[2]);
const [browserPath, folder] = process.argv.slice(3);
const browser = await chromium.launch({ executablePath: browserPath, args: ['--no-sandbox'] });
const page = await browser.newPage({ viewport: { width: 1100, height: 1000 } });
const faults = [];
page.on('pageerror', (error) => faults.push(String(error)));
page.on('console', (message) => { if (message.type() === 'error') faults.push(message.text()); });
page.setDefaultTimeout(30000);
const picture = (name) => (folder ? page.screenshot({ path: join(folder, `${name}.png`) }) : null);
const articles = (text) => page.locator('article', { hasText: text });
const type = async (text) => {
  await page.getByLabel('Message', { exact: true }).fill(text);
  await page.keyboard.press('Enter');
};
// Downloads a link of the thread and compares it with the SHA-256 that the thread tells.
const download = async (article) => {
  const link = article.getByRole('link').first();
  const told = (await article.innerText()).match(/[0-9a-f]{64}/)?.[0];
  assert.ok(told, 'the thread tells a SHA-256');
  const body = Buffer.from(await (await fetch(await link.getAttribute('href'))).arrayBuffer());
  assert.equal(createHash('sha256').update(body).digest('hex'), told);
};

// What the cluster's administrator does.
const token = readFileSync(sandbox.kubeconfig, 'utf8').match(/token: "?([^\s"]+)/)[1];
const administer = async (method, path, body) => {
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
  const answer = await fetch(sandbox.kubernetes + path, { method, headers, body: JSON.stringify(body) });
  assert.ok(answer.ok, `${path}: ${answer.status}`);
};

const expectations = {
  async 'a command ends in a file whose digest is the one that was told'() {
    await page.goto(sandbox.page);
    await page.getByText('the bot is connected').waitFor();
    await type('/diag process ledger');
    const done = articles(/done after/).first();
    await done.waitFor();
    await picture('bot-done');
    await download(done);
  },
  async 'run again asks for a new run, which ends as well'() {
    await page.getByRole('button', { name: 'Run again' }).first().click();
    await page.waitForFunction(() => [...document.querySelectorAll('article')].filter((a) => /done after/.test(a.innerText)).length >= 2);
    await picture('bot-again');
  },
  async 'a link is renewed privately'() {
    await page.getByRole('button', { name: 'Send me a link' }).first().click();
    const answer = page.locator('article.ephemeral').filter({ has: page.getByRole('link') }).last();
    await answer.waitFor();
    const href = await answer.getByRole('link').first().getAttribute('href');
    assert.equal((await fetch(href)).status, 200);
    await picture('bot-link');
  },
  async 'a misspelt diagnostic is refused with the right one'() {
    await type('/diag prozess ledger');
    const answer = page.locator('article.ephemeral', { hasText: 'prozess' });
    await answer.waitFor();
    assert.match(await answer.innerText(), /Did you mean process/);
    await picture('bot-mean');
  },
  async 'the command alone opens a form, which offers names and starts a run'() {
    await type('/diag');
    const dialog = page.locator('dialog.view');
    await dialog.getByLabel('Pod or workload').fill('led');
    await page.waitForFunction(() => document.querySelector('dialog.view datalist option[value="shop/deployment/ledger"]'));
    await dialog.getByLabel('Pod or workload').fill('shop/deployment/ledger');
    await dialog.getByLabel('Diagnostic').selectOption('heap-dump');
    await dialog.getByText('heavy: stands still').waitFor();
    await dialog.getByLabel('Diagnostic').selectOption('process');
    await dialog.getByText('none that a request would notice').waitFor();
    await picture('bot-form');
    const before = await articles(/done after/).count();
    await dialog.getByRole('button', { name: 'Run' }).click();
    await dialog.waitFor({ state: 'detached' });
    await page.waitForFunction((n) => [...document.querySelectorAll('article')].filter((a) => /done after/.test(a.innerText)).length > n, before);
  },
  async 'what fits is offered as buttons, and one is answered in the thread of the offer'() {
    await type('/diag offer deploy/ledger -n shop');
    const offer = articles('press what shall be taken').last();
    await offer.waitFor();
    assert.match(await offer.innerText(), /first-response/);
    await picture('bot-offer');
    await offer.getByRole('button', { name: 'sockets', exact: true }).click();
    await page.waitForFunction(() => [...document.querySelectorAll('article')].some((a) => /pressed by/.test(a.innerText) && /done/.test(a.innerText)));
    const answer = page.locator('article.reply', { hasText: 'sockets of' }).filter({ hasText: 'done after' });
    await answer.waitFor();
    assert.equal(await answer.getAttribute('data-thread'), await offer.getAttribute('data-ts'), 'in the thread of the offer');
    assert.equal(await offer.getByRole('button', { name: 'sockets', exact: true }).count(), 0, 'what was pressed is no button any more');
    await picture('bot-pressed');
  },
  async 'many targets are one table with a row each'() {
    // Of a few, each has a message of its own instead.
    const names = Array.from({ length: 12 }, (_, n) => `swarm-${String(n).padStart(2, '0')}`);
    for (const name of names) {
      await administer('POST', '/api/v1/namespaces/shop/pods', {
        apiVersion: 'v1', kind: 'Pod', metadata: { name, namespace: 'shop', labels: { app: 'swarm' } },
        spec: { containers: [{ name: 'app', image: 'registry.sandbox/none' }] },
      });
    }
    await type('/diag pod-report -l app=swarm -n shop --all');
    await articles('12 targets: 12 done.').waitFor();
    const table = page.locator('article.reply', { hasText: 'swarm-00' });
    await table.filter({ hasText: /(✓[^✓]*){12}/ }).waitFor();
    assert.equal(await table.count(), 1);
    const rows = (await table.locator('pre').innerText()).split('\n');
    assert.deepEqual(rows.map((row) => row.match(/^✓ (swarm-\d+) +\d/)?.[1]), names, rows.join('\n'));
    await table.locator('pre').scrollIntoViewIfNeeded();
    await picture('bot-table');
  },
  async 'every block of the bot is one that the page knows, and the page made no error'() {
    assert.equal(await page.locator('.unknown').count(), 0);
    assert.deepEqual(faults, []);
  },
};
let failed = 0;
for (const [name, expectation] of Object.entries(expectations)) {
  try {
    await expectation();
    console.log(`ok      page with the bot: ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  page with the bot: ${name}\n${error.stack}`);
    await picture('bot-failed');
  }
}
await browser.close();
process.exit(failed === 0 ? 0 : 1);
