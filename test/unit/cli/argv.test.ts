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

describe('flags with keys', () => {
  const FLAG = '--quantization-config';

  /** The object that a command line gives the flag. */
  function objectOf(...argv: string[]): unknown {
    const words = normalise(...argv);
    expect(words).toHaveLength(2);
    expect(words[0]).toBe(FLAG);
    return JSON.parse(words[1] ?? '');
  }

  it.each<[readonly string[], object]>([
    [[`${FLAG}.quantization`, 'wint8'], { quantization: 'wint8' }],
    [[`${FLAG}.quantization=wint8`], { quantization: 'wint8' }],
    [['--quantization_config.modules_to_not_convert', 'a'], { modules_to_not_convert: 'a' }],
    [[`${FLAG}.quantize_lm_head`, 'true'], { quantize_lm_head: true }],
    [[`${FLAG}.ignore+`, 're:.*o_proj', `${FLAG}.ignore+=b,c`], { ignore: ['re:.*o_proj', 'b', 'c'] }],
    [[`${FLAG}.ignore+`, 're:.{1,3}proj,b'], { ignore: ['re:.{1,3}proj', 'b'] }],
    [[`${FLAG}.ignore+`, '["a,b", "c"]'], { ignore: ['a,b', 'c'] }],
    [[`${FLAG}.ignore`, '["a", "b"]'], { ignore: ['a', 'b'] }],
    [[`${FLAG}.targets.re:.*down_proj`, 'wint8'], { targets: { 're:.*down_proj': 'wint8' } }],
    [
      [`${FLAG}.targets.model.layers.0.mlp.up_proj=W4A16`, `${FLAG}.targets.re:a.+`, 'wint8'],
      { targets: { 'model.layers.0.mlp.up_proj': 'W4A16', 're:a.+': 'wint8' } },
    ],
    [
      [`${FLAG}.targets.re:(?=.*q)(?!.*k)(?<=x)(?<!y)=wint8`],
      { targets: { 're:(?=.*q)(?!.*k)(?<=x)(?<!y)': 'wint8' } },
    ],
    [[`${FLAG}.a.b.c`, '1', `${FLAG}.a.b.d+`, '2,x'], { a: { b: { c: 1, d: [2, 'x'] } } }],
    [[`${FLAG}.moe`, '--wint8'], { moe: '--wint8' }],
    [[`${FLAG}.__proto__.b`, '1'], JSON.parse('{"__proto__": {"b": 1}}') as object],
  ])('%j', (argv, expected) => {
    expect(objectOf(...argv)).toEqual(expected);
  });

  it('stand beside the object itself and other words', () => {
    expect(
      normalise(
        'm',
        `${FLAG}.moe`,
        'wint4',
        FLAG,
        '{}',
        '--override_generation_config.top_p',
        '0.5',
        '--',
        'x',
      ),
    ).toEqual([
      'm',
      FLAG,
      '{}',
      FLAG,
      '{"moe":"wint4"}',
      '--override-generation-config',
      '{"top_p":0.5}',
      '--',
      'x',
    ]);
  });

  it.each([
    [[`${FLAG}.moe`], '--quantization-config.moe expects a value.'],
    [[`${FLAG}.`, 'a'], 'Expected keys between the dots of --quantization-config..'],
    [[`${FLAG}.a..b`, 'a'], 'Expected keys between the dots'],
    [[`${FLAG}.+`, 'a'], 'Expected keys between the dots'],
    [[`${FLAG}.targets.`, 'a'], 'Expected keys between the dots'],
    [['--port.number', '1'], '--port takes one value and has no keys, but received .number.'],
    [['--offline.x', '1'], '--offline takes one value and has no keys'],
    [['--quantisation-config.moe', 'wint8'], 'Unknown flag --quantisation-config.'],
    [['--enforce-eager.x', '1'], '--enforce-eager is not supported'],
    [
      [`${FLAG}.moe`, 'a', `${FLAG}.moe`, 'b'],
      'Expected one value for "moe" of --quantization-config but received "a" and "b".',
    ],
    [[`${FLAG}.ignore`, 'a', `${FLAG}.ignore+`, 'b'], 'Expected one value for "ignore"'],
  ])('refuses %j', (argv, message) => {
    expect(() => normalise(...argv)).toThrow(message);
    expect(() => normalise(...argv)).toThrow(expect.objectContaining({ code: 'usage' }));
  });
});
