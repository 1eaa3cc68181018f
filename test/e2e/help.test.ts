import { Config } from '@oclif/core';
import { expect, it } from 'vitest';
import { ROOT, runCli } from '../helpers/cli.js';

const COLUMNS = 80;

it('fits into 80 columns, topics and commands on a line each', async () => {
  const { commands, topics } = await Config.load(ROOT);
  const own = commands.filter(({ pluginName }) => pluginName === 'fdq');
  expect(
    topics
      .filter(({ name }) => name === 'cache' || name === 'bench')
      .map(({ name }) => name)
      .sort(),
  ).toEqual(['bench', 'cache']);
  for (const words of [[], ['cache'], ...own.map(({ id }) => id.split(':'))]) {
    const { code, stdout } = await runCli([...words, '--help']);
    expect({ words, code }).toEqual({ words, code: 0 });
    const lines = stdout.split('\n');
    expect(lines.filter((line) => line.length > COLUMNS)).toEqual([]);
    for (const { id, summary = '' } of own.filter(({ id }) => words.length === 0 && !id.includes(':')))
      expect(lines).toContainEqual(expect.stringMatching(new RegExp(`^  ${id} +${summary}$`)));
  }
  expect((await runCli(['cache', '--help'])).stdout).toMatch(/^List, check or remove quantized weights/);
});
