import { constants } from 'node:os';
import process from 'node:process';
import { UserError } from '../errors.js';

export interface SignalActions {
  /** First signal: let running work finish. */
  drain(): Promise<void>;
  /** Second signal: stop now. */
  abort(): Promise<void>;
  info(line: string): void;
}

export interface SignalWatch {
  /** The first signal received. */
  readonly received: 'SIGINT' | 'SIGTERM' | undefined;
  /** Settles when the first signal arrives. */
  readonly first: Promise<void>;
  dispose(): void;
}

/** SIGTERM and Ctrl-C: the first drains, the second aborts, the third ends the process on the spot. */
export function watchSignals(actions: SignalActions): SignalWatch {
  let count = 0;
  let received: SignalWatch['received'];
  let announce = (): void => undefined;
  const first = new Promise<void>((resolve) => (announce = resolve));
  const onSignal = (signal: 'SIGINT' | 'SIGTERM'): void => {
    count++;
    if (count === 1) {
      received = signal;
      announce();
      actions.info(`${signal}: finishing running requests; once more to end them now.`);
      void actions.drain().catch(() => undefined);
    } else if (count === 2) {
      actions.info(`${signal}: ending running requests.`);
      void actions.abort().catch(() => undefined);
    } else {
      process.exit(128 + constants.signals[signal]);
    }
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  return {
    get received() {
      return received;
    },
    first,
    dispose: () => {
      process.off('SIGINT', onSignal);
      process.off('SIGTERM', onSignal);
    },
  };
}

/** What a command fails with that was told to end; its exit code is that of the signal. */
class InterruptedError extends UserError {
  constructor(private readonly by: 'SIGINT' | 'SIGTERM') {
    super('aborted', `Interrupted by ${by}.`);
  }

  override get exitCode(): number {
    return 128 + constants.signals[this.by];
  }
}

export interface InterruptWatch {
  /** Aborted by the first SIGINT or SIGTERM, with the error that the command then fails with. */
  readonly signal: AbortSignal;
  /** 128 + the signal's number once one arrived. */
  readonly exitCode: number | undefined;
  dispose(): void;
}

/** Ctrl-C and SIGTERM for a command that only has to clean up; the second one ends the process on the spot. */
export function watchInterrupt(): InterruptWatch {
  const controller = new AbortController();
  let exitCode: number | undefined;
  const onSignal = (signal: 'SIGINT' | 'SIGTERM'): void => {
    if (exitCode !== undefined) process.exit(exitCode);
    const error = new InterruptedError(signal);
    ({ exitCode } = error);
    controller.abort(error);
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  return {
    signal: controller.signal,
    get exitCode() {
      return exitCode;
    },
    dispose: () => {
      process.off('SIGINT', onSignal);
      process.off('SIGTERM', onSignal);
    },
  };
}

/** Asked to stop and stopped is success for a service manager; Ctrl-C is reported as shells expect. */
export function exitCodeAfter(signal: SignalWatch['received']): number {
  return signal === 'SIGINT' ? 128 + constants.signals.SIGINT : 0;
}
