// A build that speaks the protocol of --rounds-from-stdin: node rounds-child.mjs MODE [decode]
import { spawn } from 'node:child_process';
import process from 'node:process';
import { createInterface } from 'node:readline';
import { setInterval } from 'node:timers';

const [mode = 'answer', decode = '100'] = process.argv
  .slice(2)
  .filter((word) => word !== '--rounds-from-stdin');
const say = (value) => process.stdout.write(`${typeof value === 'string' ? value : JSON.stringify(value)}\n`);

if (mode === 'die') {
  process.stderr.write('cannot find the model\n');
  process.exit(3);
}
// Says nothing and lives on when its input ends; its child is in its process group.
if (mode === 'silent' || mode === 'leave') {
  const child = spawn(process.execPath, [process.argv[1], 'grandchild'], { stdio: 'inherit' });
  if (mode === 'leave') child.once('spawn', () => process.exit(0));
}
if (mode === 'silent' || mode === 'leave' || mode === 'grandchild') {
  await new Promise(() => setInterval(() => undefined, 60_000));
} else if (mode === 'refuse') say({ error: { message: 'No model there.', suggestions: ['Give a model.'] } });
else if (mode === 'nonsense') say('hello');
else {
  const environment = {
    date: '2026-01-01T00:00:00.000Z',
    platform: 'linux-x64',
    cpu: 'Test CPU',
    cores: 2,
    memoryBytes: 1,
    isa: null,
    node: process.version,
    fdq: '0.1.0',
    onnxruntime: null,
    commit: null,
  };
  say({ ready: true, scenarios: mode === 'other-scenario' ? ['b'] : ['a'], environment, pid: process.pid });
}
let count = 0;
for await (const line of createInterface({ input: process.stdin })) {
  const { round, scenario } = JSON.parse(line);
  if (mode === 'die-later' && count === 3) {
    process.stderr.write('out of memory\n');
    process.kill(process.pid, 'SIGKILL');
  }
  if (mode === 'hang' && count === 3) continue;
  count++;
  // Wobbles by 1 %, so that intervals have a width.
  const figure = Number(decode) * (1 + 0.01 * Math.sin(count * 12.9898));
  say({ round: mode === 'wrong-round' ? round + 1 : round, scenario, metrics: { decode: figure } });
}
