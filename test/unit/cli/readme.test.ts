import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { ROOT } from '../../helpers/cli.js';

describe('README.md', () => {
  // oclif puts help texts in by String.replace, where $' stands for the rest of the page.
  it('has each section once', () => {
    const page = readFileSync(path.join(ROOT, 'README.md'), 'utf8');
    const sections = page.split('\n').filter((line) => line.startsWith('## '));
    expect(sections).toContain('## License');
    expect(sections).toEqual([...new Set(sections)]);
  });
});
