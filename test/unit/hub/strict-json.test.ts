import { describe, expect, it } from 'vitest';
import { FdqError } from '../../../src/errors.js';
import { parseStrictJson, parseStrictJsonObject } from '../../../src/hub/strict-json.js';

const OPTIONS = { what: 'file.json', maxDepth: 4 };

function parse(text: string, options: Partial<Parameters<typeof parseStrictJson>[1]> = {}): unknown {
  return parseStrictJson(Buffer.from(text), { ...OPTIONS, ...options });
}

describe('parseStrictJson', () => {
  it.each([
    '{"a":[1,-2.5e3,"x,{\\"[",null],"b":{"a":true}}',
    '[{"a":1},{"a":2}]',
    '{"a":{"x":1},"b":{"x":2},"c":["a","a"],"d":"a"}',
    ' {"\\\\":1,"\\"":2} ',
  ])('reads %s as JSON.parse does', (text) => {
    expect(parse(text)).toEqual(JSON.parse(text));
  });

  it.each([
    ['{"a":1,"a":1}', /the key "a" appears twice/],
    ['{"a":1,"\\u0061":1}', /the key "a" appears twice/],
    ['{"x":{"b":[{}],"b":2}}', /the key "b" appears twice/],
    ['{"a":"}","a":1}', /the key "a" appears twice/],
    ['{"__proto__":{}}', /__proto__/],
    ['{"\\u005f_proto__":{}}', /__proto__/],
    ['[[[[[]]]]]', /deeper than 4 levels/],
    ['{"a":NaN}', /does not parse/],
    ['{"a":1}}', /does not parse/],
    ['{"a', /does not parse/],
    ['{"\\q":1}', /does not parse/],
    ['', /does not parse/],
  ])('refuses %s', (text, message) => {
    expect(() => parse(text)).toThrow(FdqError);
    expect(() => parse(text)).toThrow(message);
  });

  it('refuses nesting far beyond the stack', () => {
    expect(() => parse('['.repeat(1_000_000))).toThrow(/deeper than 4 levels/);
  });

  it('refuses more values than fit in memory comfortably', () => {
    expect(() => parse(`[${'0,'.repeat((1 << 22) + 1)}0]`)).toThrow(/holds more than/);
  });

  it.each(['-1', '1.0', '1e3', '1E3', '[0,-0]', '{"a":1e+3}'])(
    'refuses %s where integers are expected',
    (text) => {
      expect(() => parse(text, { integersOnly: true })).toThrow(/not a plain non-negative integer/);
    },
  );

  it('lets words, strings and integers pass where integers are expected', () => {
    const text = '{"e-.+E":[true,false,null,12,0],"x":"-1.5e3"}';
    expect(parse(text, { integersOnly: true })).toEqual(JSON.parse(text));
  });

  it('refuses invalid UTF-8 and a byte order mark', () => {
    expect(() => parseStrictJson(Buffer.from([0x22, 0xff, 0x22]), OPTIONS)).toThrow(/not valid UTF-8/);
    expect(() => parse('\ufeff{}')).toThrow(/does not parse/);
  });

  it('keeps control characters of the file out of messages', () => {
    const message = (() => {
      try {
        parse('{"\\u001b[2J\u202e":1,"\\u001b[2J\u202e":1}');
      } catch (error) {
        return (error as Error).message;
      }
      return '';
    })();
    expect(message).toContain('\\u001b[2J\\u202e');
    expect(message).not.toContain('\u001b');
  });

  it.each([
    ['[]', 'a list of 0'],
    ['null', 'null'],
    ['"x"', 'the string "x"'],
    ['7', 'the number 7'],
  ])('refuses %s where an object is expected', (text, found) => {
    expect(() => parseStrictJsonObject(Buffer.from(text), OPTIONS)).toThrow(
      `top level is ${found}, not an object`,
    );
  });
});
