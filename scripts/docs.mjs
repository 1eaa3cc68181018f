// Regenerates what documentation derives from code: the command reference of README.md and the file list of
// docs/architecture.md. With --check nothing is written; what is stale is named and the exit code is 1.
import { spawnSync } from 'node:child_process';
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import prettier from 'prettier';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const require = createRequire(import.meta.url);
const README = path.join(root, 'README.md');
const ARCHITECTURE = path.join(root, 'docs', 'architecture.md');
const NOT_DESCRIBED = '(not described)';
const SOURCES = ['src', 'custom-ops'];

/** README.md as `oclif readme` writes it, with the versions that change on every machine taken out. */
function generateReadme(current) {
  const oclif = path.join(path.dirname(require.resolve('oclif/package.json')), 'bin', 'run.js');
  const { status, stderr, stdout } = spawnSync(
    process.execPath,
    [oclif, 'readme', '--no-aliases', '--readme-path', 'README.md'],
    { cwd: root, encoding: 'utf8' },
  );
  const generated = readFileSync(README, 'utf8');
  writeFileSync(README, current);
  if (status !== 0) throw new Error(`oclif readme failed: ${stderr}${stdout}`);
  return generated
    .replace(/^fdq\/\S+ \S+ node-\S+$/m, 'fdq/<version> <platform> node-<version>')
    .replace(/^_See code: .*_\n\n?/gm, '');
}

/** Source files, as docs/architecture.md names them. */
function listSources() {
  const isSource = (file) => /\.(ts|h|cc|cuh?|txt|json)$/.test(file) && !/^custom-ops\/build/.test(file);
  return SOURCES.flatMap((folder) =>
    readdirSync(path.join(root, folder), { recursive: true, withFileTypes: true }),
  )
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(root, path.join(entry.parentPath ?? entry.path, entry.name)))
    .filter(isSource)
    .sort();
}

/** First sentence of what a new file says about itself; descriptions written by hand replace it. */
function describeFile(file) {
  const text = readFileSync(path.join(root, file), 'utf8');
  const documented = [...text.matchAll(/^\/\*\*((?:(?!\*\/)[^])*)\*\/\nexport (?:abstract |async )?(\w+)/gm)];
  const main =
    documented.find(([, , kind]) => ['class', 'function', 'const'].includes(kind)) ?? documented[0];
  const comment = main?.[1] ?? /^(?:\/\/ .*\n)+/m.exec(text)?.[0] ?? '';
  const words = comment
    .replace(/^\s*(\*|\/\/) ?/gm, ' ')
    .replace(/\s+/g, ' ')
    .trim();
  const sentence = /^(.*?[^.]{3}[.:])( |$)/.exec(words)?.[1] ?? words;
  return sentence.replace(/[.:]$/, '').replaceAll('|', '\\|') || NOT_DESCRIBED;
}

/** The file list with one line for every file that exists, keeping the descriptions written by hand. */
function generateArchitecture(current) {
  const descriptions = new Map(
    [...current.matchAll(/^\| `([^`]+)` +\| (.*?) +\|$/gm)].map(([, file, text]) => [file, text]),
  );
  const files = listSources();
  const isWritten = (text) => text !== undefined && text !== NOT_DESCRIBED;
  const describe = (file) =>
    isWritten(descriptions.get(file)) ? descriptions.get(file) : describeFile(file);
  const rows = files.map((file) => `| \`${file}\` | ${describe(file)} |`);
  const table = ['| File | What it does |', '| --- | --- |', ...rows];
  const list = `<!-- files -->\n\n${table.join('\n')}\n\n<!-- filesstop -->`;
  return current.replace(/<!-- files -->[^]*<!-- filesstop -->/, () => list);
}

function problemsOf(file, current, generated) {
  const name = path.relative(root, file);
  const undescribed = generated.split('\n').filter((line) => line.includes(NOT_DESCRIBED));
  return [
    ...(current === generated ? [] : [`${name} is stale: run npm run docs and commit the result.`]),
    ...undescribed.map((line) => `${name} has no description of ${line.split('`')[1]}.`),
  ];
}

async function main(args) {
  const problems = [];
  for (const [file, generate] of [
    [README, generateReadme],
    [ARCHITECTURE, generateArchitecture],
  ]) {
    const current = readFileSync(file, 'utf8');
    const generated = await prettier.format(generate(current), {
      ...(await prettier.resolveConfig(file)),
      filepath: file,
    });
    if (args.includes('--check')) problems.push(...problemsOf(file, current, generated));
    else if (generated !== current) writeFileSync(file, generated);
  }
  for (const problem of problems) console.error(problem);
  return problems.length === 0 ? 0 : 1;
}

process.exitCode = await main(process.argv.slice(2));
