// Weir through the official Node SDK.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import OpenAI from 'openai';
import { start } from './server.mjs';

const messages = [{ role: 'user', content: 'Hello! Who are you?' }];
const slow = ['--device', 'sim', '--sim-step-us', '10000', '--max-num-seqs', '1'];
let demo;
let client;

const connect = (server, settings = {}) =>
  new OpenAI({ baseURL: server.baseURL, apiKey: 'none', maxRetries: 0, ...settings });

before(async () => {
  demo = await start();
  client = connect(demo);
});

after(async () => {
  assert.equal(await demo.stop(), 0, 'SIGTERM drains and exits with 0');
});

test('models are listed', async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.deepEqual(names, ['demo']);
});

test('an answer is whole and carries its request id', async () => {
  const { data, request_id } = await client.chat.completions
    .create({ model: 'demo', messages, temperature: 0 })
    .withResponse();
  assert.equal(data.choices[0].finish_reason, 'stop');
  assert.ok(data.choices[0].message.content.length > 3);
  assert.equal(data.usage.total_tokens, data.usage.prompt_tokens + data.usage.completion_tokens);
  assert.ok(request_id);
});

test('the stream folds to the whole answer', async () => {
  const settings = { model: 'demo', messages, temperature: 1, seed: 7, max_tokens: 32 };
  const whole = await client.chat.completions.create(settings);
  const stream = await client.chat.completions.create({
    ...settings,
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = '';
  let usage;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? '';
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.deepEqual(usage.completion_tokens, whole.usage.completion_tokens);
});

test('n choices, stop strings, logprobs and seeds', async () => {
  const settings = { model: 'demo', messages, n: 2, seed: 3, temperature: 1, max_tokens: 12 };
  const first = await client.chat.completions.create({ ...settings, logprobs: true, top_logprobs: 2 });
  const second = await client.chat.completions.create(settings);
  assert.deepEqual(
    first.choices.map((c) => c.message.content),
    second.choices.map((c) => c.message.content),
  );
  for (const choice of first.choices) {
    for (const token of choice.logprobs.content) assert.equal(token.top_logprobs.length, 2);
  }
  const whole = first.choices[0].message.content;
  const stop = whole.slice(4, 6);
  const cut = await client.chat.completions.create({ ...settings, n: 1, stop });
  assert.ok(!cut.choices[0].message.content.includes(stop));
});

test('completions take text and token ids', async () => {
  const settings = { model: 'demo', max_tokens: 8, temperature: 0 };
  const text = await client.completions.create({ ...settings, prompt: 'Once upon a time' });
  const { tokens } = await client.post('/../tokenize', { body: { prompt: 'Once upon a time' } });
  const ids = await client.completions.create({ ...settings, prompt: tokens });
  assert.equal(ids.choices[0].text, text.choices[0].text);
});

test('errors have the classes of the SDK', async () => {
  await assert.rejects(
    client.chat.completions.create({ model: 'nope', messages }),
    (e) => e instanceof OpenAI.NotFoundError && e.code === 'model_not_found',
  );
  await assert.rejects(
    client.chat.completions.create({ model: 'demo', messages, temperature: 9 }),
    (e) => e instanceof OpenAI.BadRequestError && e.param === 'temperature',
  );
  const server = await start('--device', 'sim', '--api-key', 'right');
  await assert.rejects(
    connect(server, { apiKey: 'wrong' }).models.list(),
    (e) => e instanceof OpenAI.AuthenticationError,
  );
  assert.ok(await connect(server, { apiKey: 'right' }).models.list());
  await server.stop();
});

test('a timeout and an abort free the request; a full queue is retried', async () => {
  const server = await start(...slow, '--max-num-queued-reqs', '1');
  const long = { model: 'demo', messages, max_tokens: 2000 };
  await assert.rejects(
    connect(server, { timeout: 300 }).chat.completions.create(long),
    (e) => e instanceof OpenAI.APIConnectionTimeoutError,
  );
  await server.waitUntilIdle();

  const stream = await connect(server).chat.completions.create({ ...long, stream: true });
  for await (const chunk of stream) {
    assert.ok(chunk.id);
    break; // leaving the loop aborts the request
  }
  await server.waitUntilIdle();

  const short = { model: 'demo', messages, max_tokens: 40 };
  const patient = connect(server, { maxRetries: 10 });
  const answers = await Promise.all(
    [1, 2, 3, 4].map(() => patient.chat.completions.create(short)),
  );
  for (const answer of answers) assert.equal(answer.usage.completion_tokens, 40);
  await server.stop();
});
