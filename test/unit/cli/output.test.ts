import { describe, expect, it } from 'vitest';
import { errorReportAsJson, renderErrorReport, toErrorReport } from '../../../src/cli/error-report.js';
import { toJson } from '../../../src/cli/json.js';
import { formatLogLine } from '../../../src/cli/logger.js';
import { describeAmount, PlainProgress } from '../../../src/cli/progress.js';
import { readyLines } from '../../../src/cli/ready-lines.js';
import { formatBytes, formatSeconds, formatTable, printable } from '../../../src/cli/render.js';
import { BugError, UserError } from '../../../src/errors.js';

describe('render', () => {
  it('escapes what could drive a terminal', () => {
    expect(printable('a\u001b[31mb\r\u202ec\nd')).toBe('a\\u001b[31mb\\u000d\\u202ec\nd');
  });

  it.each([
    [0, '0 B'],
    [1023, '1023 B'],
    [1536, '1.50 KiB'],
    [20 * 1024 ** 2, '20.0 MiB'],
    [8 * 1024 ** 3, '8.00 GiB'],
  ])('%d bytes are %s', (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text);
  });

  it.each([
    [0.04, '0.0s'],
    [9.94, '9.9s'],
    [59.4, '59s'],
    [75, '1m15s'],
    [119.7, '2m00s'],
  ])('%d seconds are %s', (seconds, text) => {
    expect(formatSeconds(seconds)).toBe(text);
  });

  it('aligns tables', () => {
    expect(
      formatTable([
        ['a', '1'],
        ['long', '2'],
      ]),
    ).toBe('a     1\nlong  2');
  });

  it('writes numbers JSON lacks as text', () => {
    expect(JSON.parse(toJson({ a: 1n, b: Number.NaN, c: [-Infinity], d: 1 }))).toEqual({
      a: '1',
      b: 'NaN',
      c: ['-Infinity'],
      d: 1,
    });
  });
});

describe('error reports', () => {
  const cause = new Error('disk on fire');
  const error = new UserError('invalid_checkpoint', 'Shard 2 is short.', {
    param: 'x.safetensors',
    suggestions: ['1. Download again.', '2. Check the disk.'],
    cause,
  });

  it('show message, code and suggestions, and causes only when debugging', () => {
    const report = toErrorReport(error);
    expect(renderErrorReport(report, false)).toBe(
      'Error: Shard 2 is short.\nCode: invalid_checkpoint\nTry:\n  1. Download again.\n  2. Check the disk.\n',
    );
    expect(renderErrorReport(report, true)).toContain('Caused by: disk on fire');
    expect(report.exitCode).toBe(3);
    expect(errorReportAsJson(report, false)).toEqual({
      code: 'invalid_checkpoint',
      message: 'Shard 2 is short.',
      param: 'x.safetensors',
      suggestions: ['1. Download again.', '2. Check the disk.'],
      causes: ['disk on fire'],
    });
  });

  it.each([new TypeError('x is undefined'), 'a string', new BugError('broken')])(
    'call %s a bug',
    (thrown) => {
      const report = toErrorReport(thrown);
      expect([report.code, report.exitCode]).toEqual(['internal', 70]);
      expect(renderErrorReport(report, false)).toContain('FDQ_DEBUG=1');
    },
  );
});

describe('plain progress', () => {
  function record(): { lines: string[]; progress: PlainProgress; clock: { now: number } } {
    const lines: string[] = [];
    const clock = { now: 0 };
    const progress = new PlainProgress({ write: (text) => lines.push(text), now: () => clock.now });
    return { lines, progress, clock };
  }

  it('prints a line every 10 percent or 5 seconds, and one at the end', () => {
    const { lines, progress, clock } = record();
    progress.phase('quantize', 'start', { totalBytes: 1000 * 1024 });
    for (let done = 0; done <= 1000; done++) {
      clock.now += 10;
      progress.phase('quantize', 'progress', { doneBytes: done * 1024 });
    }
    progress.phase('quantize', 'done');
    expect(lines.length).toBeGreaterThanOrEqual(10);
    expect(lines.length).toBeLessThanOrEqual(11);
    expect(lines[0]).toMatch(
      /^Read and quantize weights: 100\.0 KiB of 1000\.0 KiB, \d+\.\d KiB\/s, 9\.1s left\n$/,
    );
    expect(lines.at(-1)).toMatch(/ \(10s\)\n$/);
  });

  it('prints one line for a phase that is over at once', () => {
    const { lines, progress, clock } = record();
    progress.phase('quantize', 'start', { totalBytes: 100 });
    for (let done = 0; done <= 100; done++) {
      clock.now += 1;
      progress.phase('quantize', 'progress', { doneBytes: done });
    }
    progress.phase('quantize', 'done');
    expect(lines).toHaveLength(1);
  });

  it('prints slow phases by time', () => {
    const { lines, progress, clock } = record();
    progress.phase('locate', 'start');
    for (let second = 1; second <= 12; second++) {
      clock.now = second * 1000;
      progress.phase('locate', 'progress', { message: `file ${second}` });
    }
    expect(lines).toEqual(['Locate model: file 5\n', 'Locate model: file 10\n']);
  });

  it('describes amounts without a total', () => {
    expect(describeAmount({ doneBytes: 1024 ** 3 }, 500)).toBe('1.00 GiB, 2.00 GiB/s');
    expect(describeAmount({ message: 'a\nb' }, 0)).toBe('a b');
  });
});

describe('log lines', () => {
  it('are one line whatever the values hold', () => {
    const json = JSON.stringify({
      level: 30,
      time: 0,
      msg: 'done',
      id: 'a\nb\u001b[0m',
      status: 200,
      path: '/v1',
    });
    expect(formatLogLine(json)).toBe(
      '1970-01-01T00:00:00.000Z INFO done id="a\\nb\\u001b[0m" status=200 path=/v1\n',
    );
  });
});

describe('ready lines', () => {
  const facts = {
    servedModelName: "it's",
    chat: true,
    scheme: 'wint8',
    weightBytes: 1024 ** 2,
    kvTokens: 4096,
    kvDataType: 'int8',
    kvBytesPerToken: 1088,
    maxModelLen: 4096,
    modelMaxLen: 4096,
    maxNumSeqs: 8,
    loadSeconds: 1.25,
  };

  it('give the facts and a command that a shell takes as it is', () => {
    const [ready, curl] = readyLines('http://0.0.0.0:80', facts, { hasApiKey: true }).split('\n');
    expect(ready).toBe(
      "Ready: http://0.0.0.0:80 | it's | wint8 | weights 1.00 MiB | KV cache 4096 tokens of 1.06 KiB (int8) | context 4096 tokens | 8 sequences | loaded in 1.3 s",
    );
    expect(curl).toContain('curl http://127.0.0.1:80/v1/chat/completions');
    expect(curl).toContain('authorization: Bearer $FDQ_API_KEY');
    expect(curl).toContain(`{"model":"it'\\''s",`);
  });

  it('say that the model would take a longer context', () => {
    const [ready] = readyLines('http://h:1', { ...facts, maxModelLen: 48 }, { hasApiKey: false }).split('\n');
    expect(ready).toContain(' | context 48 of 4096 tokens | ');
  });

  it('ask for a completion where the model has no chat template', () => {
    const text = readyLines('https://[::]:1', { ...facts, chat: false }, { hasApiKey: false });
    expect(text).toContain('curl -k https://[::1]:1/v1/completions');
    expect(text).toContain('"prompt":');
    expect(text).not.toContain('Bearer');
  });
});
