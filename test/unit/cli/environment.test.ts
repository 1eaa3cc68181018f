import { readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { listFlags } from '../../../src/cli/config-keys.js';
import { findUnknownVariables } from '../../../src/cli/environment.js';
import { environmentName } from '../../../src/cli/flag-row.js';
import { ROOT } from '../../helpers/cli.js';

function warningsOf(environment: Readonly<Record<string, string>>): readonly string[] {
  return findUnknownVariables(environment).map(({ warning }) => warning);
}

describe('findUnknownVariables', () => {
  it.each([
    ['FDQ_MAX_MODLE_LEN', 'it has no effect. Did you mean FDQ_MAX_MODEL_LEN?'],
    ['FDQ_max_model_len', 'it has no effect. Did you mean FDQ_MAX_MODEL_LEN?'],
    ['FDQ_MAX_SEQ_LEN', 'it has no effect. Did you mean FDQ_MAX_MODEL_LEN?'],
    ['FDQ_DEBUGG', 'it has no effect. Did you mean FDQ_DEBUG?'],
    ['FDQ_NO_CACHE', 'it has no effect. Did you mean FDQ_CACHE=false?'],
    ['FDQ_FAIL_IF', '--fail-if can only be given on the command line.'],
    ['FDQ_SAVE_RESULT', '--save-result can only be given on the command line.'],
    ['FDQ_JSON', '--json can only be given on the command line.'],
    ['FDQ_ENABLE_LORA', '--enable-lora is not supported: LoRA adapters are not supported.'],
    ['FDQ_IMAGE_TAG', 'it has no effect.'],
  ])('warns about %s', (name, reason) => {
    expect(warningsOf({ [name]: 'x' })).toEqual([`Unknown environment variable ${name}: ${reason}`]);
  });

  it('warns once for each variable, in order, and never tells a value', () => {
    const warnings = warningsOf({ FDQ_ZZ: '1', FDQ_API_KYE: 'hunter2', PATH: '/bin' });
    expect(warnings).toHaveLength(2);
    expect(warnings[0]).toContain('Did you mean FDQ_API_KEY?');
    expect(warnings.join('\n')).not.toContain('hunter2');
  });

  it('escapes what a name could do to a terminal', () => {
    expect(warningsOf({ 'FDQ_\u001b[2J': '1' }).join('')).not.toContain('\u001b');
  });

  it('knows the variables of the settings of every command, and takes an empty one for none', () => {
    const settings = listFlags().filter(([, row]) => row.commandLineOnly !== true);
    const environment = Object.fromEntries(settings.map(([flag]) => [environmentName(flag), 'x']));
    expect(Object.keys(environment)).toEqual(
      expect.arrayContaining(['FDQ_PORT', 'FDQ_GOODPUT', 'FDQ_CONFIG']),
    );
    expect(warningsOf(environment)).toEqual([]);
    expect(warningsOf({ FDQ_FAIL_IF: '', FDQ_NO_SUCH: '' })).toEqual([]);
  });

  it('knows every variable that the documentation tells people to set', () => {
    // Names on the page about CUDA are of its compiler.
    const pages = readdirSync(path.join(ROOT, 'docs')).filter((name) => /(?<!^cuda)\.md$/.test(name));
    const text = ['README.md', ...pages.map((name) => path.join('docs', name))]
      .map((name) => readFileSync(path.join(ROOT, name), 'utf8'))
      .join('\n');
    const named = [...text.matchAll(/\bFDQ_[A-Z0-9_]+(?=[=\]])/g)].map(([name]) => name);
    expect(named).toEqual(expect.arrayContaining(['FDQ_DEBUG', 'FDQ_CACHE', 'FDQ_PORT']));
    expect(warningsOf(Object.fromEntries(named.map((name) => [name, '1'])))).toEqual([]);
  });

  it('passes over what Kubernetes sets for Services whose names begin with fdq', () => {
    const links = {
      FDQ_SERVICE_HOST: '10.0.0.1',
      FDQ_SERVICE_PORT: '8000',
      FDQ_SERVICE_PORT_HTTP_METRICS: '8000',
      FDQ_PORT_8000_TCP: 'tcp://10.0.0.1:8000',
      FDQ_PORT_8000_TCP_PROTO: 'tcp',
      FDQ_SMALL_MODEL_SERVICE_HOST: '10.0.0.1',
      FDQ_SMALL_MODEL_PORT: 'tcp://10.0.0.1:8000',
      FDQ_SMALL_MODEL_PORT_8000_UDP_ADDR: '10.0.0.1',
    };
    expect(warningsOf(links)).toEqual([]);
    expect(warningsOf({ FDQ_SMALL_MODEL_PORT: '8000' })).toHaveLength(1);
  });
});
