import { createRequire } from 'node:module';
import { arch, cpus, release } from 'node:os';
import process from 'node:process';
import { BaseCommand } from '../cli/base-command.js';
import { formatTable } from '../cli/render.js';

interface VersionReport {
  readonly fdq: string;
  readonly node: string;
  readonly onnxruntime: string;
  readonly platform: string;
  readonly cpu: string;
}

export default class Version extends BaseCommand {
  static override readonly summary = 'Print the versions of fdq and of what it runs on.';

  static override readonly examples = [
    { command: '<%= config.bin %> <%= command.id %>', description: 'A table for people:' },
    { command: '<%= config.bin %> <%= command.id %> --json', description: 'The same for programs:' },
  ];

  async run(): Promise<VersionReport> {
    await this.parseSettings({});
    const require = createRequire(import.meta.url);
    const onnxruntime = require('onnxruntime-node/package.json') as { readonly version: string };
    const report: VersionReport = {
      fdq: this.config.version,
      node: process.versions.node,
      onnxruntime: onnxruntime.version,
      platform: `${process.platform}-${arch()} ${release()}`,
      cpu: cpus()[0]?.model ?? 'unknown',
    };
    this.log(formatTable(Object.entries(report)));
    return report;
  }
}
