import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { convert, type ConvertObserver } from '../../src/convert/convert.js';
import { readSafetensorsHeader } from '../../src/hub/safetensors.js';
import { convertFolder } from '../helpers/convert-fixture.js';
import { fixtureFolder, fixtureOptions } from '../helpers/fixture-model.js';
import { readRawTensors } from '../helpers/read-compressed.js';
import { createTempDir } from '../helpers/temp-dir.js';

let dir: string;
beforeEach(async () => {
  dir = await createTempDir();
});

describe('fdq convert --format safetensors in nvfp4', () => {
  const FILE = 'model.safetensors';
  const convertWarned = async (
    model: string,
    output: string,
    scheme?: string,
  ): Promise<readonly string[]> => {
    const warnings: string[] = [];
    await convertFolder(model, dir, scheme, {
      format: 'safetensors',
      output: path.join(dir, output),
      warn: (line) => warnings.push(line),
    });
    return warnings;
  };
  const scalesOf = (output: string): ReadonlyMap<string, number> =>
    new Map(
      [...readRawTensors(path.join(dir, output), [FILE])].flatMap(([name, { bytes }]) => {
        const module = /^model\.layers\.(.*)\.weight_global_scale$/.exec(name)?.[1];
        return module === undefined ? [] : [[module, Buffer.from(bytes).readFloatLE()] as const];
      }),
    );

  it('gives what engines fuse one tensor scale, and everything else its own', async () => {
    expect(await convertWarned(fixtureFolder('qwen3'), 'a', 'nvfp4')).toEqual([]);
    const scales = scalesOf('a');
    expect(scales.size).toBe(14);
    for (const layer of [0, 1]) {
      const [q, k, v, o] = ['q', 'k', 'v', 'o'].map((x) => scales.get(`${layer}.self_attn.${x}_proj`));
      const [gate, up, down] = ['gate', 'up', 'down'].map((x) => scales.get(`${layer}.mlp.${x}_proj`));
      expect([k, v, up]).toEqual([q, q, gate]);
      expect(new Set([q, o, gate, down]).size).toBe(4);
    }
  });

  it('gives weights that are restored for it one tensor scale too', async () => {
    const stored = path.join(fixtureFolder('..'), 'offline', 'qwen3_gptq_g128');
    const load = { ...fixtureOptions(stored), quantization: 'nvfp4', requantize: true };
    await convertFolder(stored, dir, undefined, { format: 'safetensors', load, verify: true });
    const scales = scalesOf('out');
    const of = (...names: string[]) => names.map((name) => scales.get(`0.${name}_proj`));
    expect(new Set(of('self_attn.q', 'self_attn.k', 'self_attn.v')).size).toBe(1);
    expect(new Set(of('mlp.gate', 'mlp.up')).size).toBe(1);
    expect(scales.get('0.self_attn.q_proj')).toBeGreaterThan(0);
  });

  it('warns of stored tensor scales that differ where vLLM fuses, and of nothing else', async () => {
    await convertWarned(fixtureFolder('qwen3'), 'a', 'nvfp4');
    expect(await convertWarned(path.join(dir, 'a'), 'b')).toEqual([]);
    expect(scalesOf('b')).toEqual(scalesOf('a'));
    const file = path.join(dir, 'a', FILE);
    const { tensors } = await readSafetensorsHeader(file);
    const bytes = readFileSync(file);
    const { offset } = tensors.get('model.layers.1.mlp.up_proj.weight_global_scale')!;
    bytes.writeFloatLE(bytes.readFloatLE(offset) * 2, offset);
    writeFileSync(file, bytes);
    expect(await convertWarned(path.join(dir, 'a'), 'c')).toEqual([
      expect.stringMatching(/^nvfp4: .* of model\.layers\.1\.mlp with different tensor scales.* vLLM/),
    ]);
  });

  it('leaves nothing when it is interrupted while it reads and writes', async () => {
    const controller = new AbortController();
    const load = { ...fixtureOptions(fixtureFolder('qwen3')), quantization: 'nvfp4' };
    const options = { load, output: path.join(dir, 'out'), format: 'safetensors', force: false } as const;
    const stop = new Error('stop');
    let progress = 0;
    const phase: ConvertObserver['phase'] = (name, state) => {
      if (name === 'write' && state === 'progress' && ++progress === 3) controller.abort(stop);
    };
    const interrupted = convert(
      { ...options, verify: false, signal: controller.signal },
      { phase, warn: () => undefined },
    );
    await expect(interrupted).rejects.toBe(stop);
    expect(readdirSync(dir)).toEqual([]);
  });
});
