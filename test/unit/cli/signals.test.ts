import { spawn } from 'node:child_process';
import process from 'node:process';
import { once } from 'node:events';
import { afterEach, describe, expect, it } from 'vitest';
import { exitCodeAfter, watchSignals, type SignalWatch } from '../../../src/cli/signals.js';

let watch: SignalWatch | undefined;
afterEach(() => watch?.dispose());

function start(): { calls: string[]; watch: SignalWatch } {
  const calls: string[] = [];
  const record = (name: string) => (): Promise<void> => {
    calls.push(name);
    return Promise.resolve();
  };
  watch = watchSignals({ drain: record('drain'), abort: record('abort'), info: () => undefined });
  return { calls, watch };
}

describe('watchSignals', () => {
  it.each(['SIGTERM', 'SIGINT'] as const)(
    'drains on the first %s and aborts on the second',
    async (signal) => {
      const { calls, watch: watching } = start();
      expect(watching.received).toBeUndefined();
      process.emit(signal, signal);
      await watching.first;
      expect(calls).toEqual(['drain']);
      const other = signal === 'SIGINT' ? 'SIGTERM' : 'SIGINT';
      process.emit(other, other);
      expect(calls).toEqual(['drain', 'abort']);
      expect(watching.received).toBe(signal);
    },
  );

  it('stops listening when disposed', () => {
    const before = process.listenerCount('SIGTERM');
    const { watch: watching } = start();
    expect(process.listenerCount('SIGTERM')).toBe(before + 1);
    watching.dispose();
    expect(process.listenerCount('SIGTERM')).toBe(before);
  });

  it('ends the process on the third signal even when nothing else does', async () => {
    const code = `
      const { watchSignals } = await import(process.argv[1]);
      const never = () => new Promise(() => {});
      watchSignals({ drain: never, abort: never, info: (line) => console.log(line) });
      setInterval(() => {}, 1000);
      console.log('up');`;
    const module = new URL('../../../dist/cli/signals.js', import.meta.url).href;
    const child = spawn(process.execPath, ['--input-type=module', '-e', code, module], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let lines = 0;
    child.stdout.on('data', (chunk: Buffer) => {
      // One signal for each line it prints: up, drain, abort.
      for (let i = 0; i < String(chunk).split('\n').length - 1; i++) {
        lines++;
        child.kill('SIGTERM');
      }
    });
    const [exitCode] = (await once(child, 'exit')) as [number];
    expect({ exitCode, lines }).toEqual({ exitCode: 143, lines: 3 });
  });
});

describe('exitCodeAfter', () => {
  it('is success for SIGTERM and 130 for Ctrl-C', () => {
    expect([exitCodeAfter('SIGTERM'), exitCodeAfter('SIGINT'), exitCodeAfter(undefined)]).toEqual([
      0, 130, 0,
    ]);
  });
});
