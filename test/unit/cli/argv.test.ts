import { describe, expect, it } from 'vitest';
import { normaliseArgv } from '../../../src/cli/argv.js';
import { SERVE_FLAGS } from '../../../src/cli/flags.js';
import { UnsupportedError } from '../../../src/errors.js';

function normalise(...argv: string[]): readonly string[] {
  return normaliseArgv(argv, SERVE_FLAGS);
}

describe('normaliseArgv', () => {
  it.each([
    [
      ['--max_model_len', '4k'],
      ['--max-model-len', '4k'],
    ],
    [['--max_model_len=4k'], ['--max-model-len=4k']],
    [['--no_enable_prefix_caching'], ['--no-enable-prefix-caching']],
    [
      ['--uvicorn_log_level', 'info'],
      ['--uvicorn-log-level', 'info'],
    ],
    // Values are never touched, whatever they look like.
    [
      ['--model', '--my_model'],
      ['--model', '--my_model'],
    ],
    [
      ['--max-waiting-time', '-1'],
      ['--max-waiting-time', '-1'],
    ],
    [
      ['-m', '--my_model'],
      ['-m', '--my_model'],
    ],
    [['--chat-template=a_b=c_d'], ['--chat-template=a_b=c_d']],
    [
      ['my_model', '-p', '80'],
      ['my_model', '-p', '80'],
    ],
    [
      ['--offline', '--', '--no_such_flag'],
      ['--offline', '--', '--no_such_flag'],
    ],
    [['--model'], ['--model']],
  ])('%j becomes %j', (argv, expected) => {
    expect(normalise(...argv)).toEqual(expected);
  });

  it('names the nearest flag', () => {
    expect(() => normalise('--served-model', 'x')).toThrow('Unknown flag --served-model.');
    expect(() => normalise('--zzzzzzzzzzz')).toThrow('Unknown flag --zzzzzzzzzzz.');
  });

  it('refuses known flags of other servers by name, negated or not', () => {
    expect(() => normalise('--enforce_eager')).toThrow(UnsupportedError);
    expect(() => normalise('--no-enable-lora')).toThrow('--no-enable-lora is not supported');
  });

  it('refuses a value where none is taken', () => {
    expect(() => normalise('--offline=yes')).toThrow('--offline takes no value but received "yes".');
    expect(() => normalise('--json=1')).toThrow('--json takes no value');
  });
});
