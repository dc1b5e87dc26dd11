// Starts and stops Weir for the client tests, as a user would: by its binary and flags.
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createInterface } from 'node:readline';

const root = fileURLToPath(new URL('../../../', import.meta.url));

function binary() {
  if (process.env.WEIR_BIN) return process.env.WEIR_BIN;
  for (const profile of ['release', 'debug']) {
    const path = `${root}target/${profile}/weir`;
    if (existsSync(path)) return path;
  }
  throw new Error('no weir binary: run `cargo build --release` first, or set WEIR_BIN');
}

export async function start(...flags) {
  // Keys of whoever runs the tests must not close the servers of the tests.
  const env = { ...process.env, XDG_STATE_HOME: mkdtempSync(join(tmpdir(), 'weir-')) };
  const child = spawn(binary(), ['--port', '0', '--log-format', 'json', ...flags], { env });
  const ended = new Promise((resolve) => child.once('exit', (code) => resolve(code)));
  const address = new Promise((resolve, reject) => {
    const seen = [];
    const read = (line) => {
      seen.push(line);
      const found = line.match(/http:\/\/[0-9.[\]:]+:\d+/);
      if (found) resolve(found[0]);
    };
    createInterface({ input: child.stdout }).on('line', read);
    createInterface({ input: child.stderr }).on('line', read);
    ended.then(() => reject(new Error(`weir ended:\n${seen.join('\n')}`)));
  });
  const url = await address;
  return {
    url,
    baseURL: `${url}/v1`,
    async metric(name) {
      const text = await (await fetch(`${url}/metrics`)).text();
      const line = text.split('\n').find((l) => l.startsWith(`${name} `) || l.startsWith(`${name}{`));
      return line ? Number(line.split(' ').at(-1)) : 0;
    },
    async waitUntilIdle() {
      for (let i = 0; i < 500; i += 1) {
        const busy =
          (await this.metric('weir_requests_running')) + (await this.metric('weir_requests_waiting'));
        if (busy === 0) return;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      throw new Error('requests are still running');
    },
    async stop() {
      child.kill('SIGTERM');
      return ended;
    },
  };
}
