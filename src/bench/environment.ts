import { execFile } from 'node:child_process';
import os from 'node:os';
import process from 'node:process';
import { promisify } from 'node:util';
import { FDQ_VERSION } from '../version.js';
import type { Environment } from './report.js';

const GIT_TIMEOUT_MS = 2000;

/**
 * What figures depend on besides the scenario.
 * @param runtime what runs the model: this process, or a server as far as it says
 */
export async function describeEnvironment(
  runtime: Pick<Environment, 'isa' | 'onnxruntime'>,
): Promise<Environment> {
  return {
    date: new Date().toISOString(),
    platform: `${process.platform}-${process.arch}`,
    cpu: os.cpus()[0]?.model.trim() ?? 'unknown',
    cores: os.availableParallelism(),
    memoryBytes: os.totalmem(),
    isa: runtime.isa,
    node: process.versions.node,
    fdq: FDQ_VERSION,
    onnxruntime: runtime.onnxruntime,
    commit: await findCommit(),
  };
}

async function findCommit(): Promise<string | null> {
  try {
    const { stdout } = await promisify(execFile)('git', ['rev-parse', 'HEAD'], { timeout: GIT_TIMEOUT_MS });
    return /^[0-9a-f]{40,64}$/.exec(stdout.trim())?.[0] ?? null;
  } catch {
    return null; // no git, or no work tree
  }
}
