import type { ServeOptions } from './cli/serve-options.js';
import type { ServeUi } from './cli/serve-ui.js';
import { UnsupportedError } from './errors.js';

/** What the ready line says. */
export interface ReadyInfo {
  readonly servedModelName: string;
  /** The model has a chat template, so /v1/chat/completions answers. */
  readonly chat: boolean;
  readonly scheme: string;
  readonly weightBytes: number;
  /** Positions the KV pool holds. */
  readonly kvTokens: number;
  readonly maxModelLen: number;
  readonly maxNumSeqs: number;
  readonly loadSeconds: number;
}

export interface RunningServer {
  /** Base URL without `/v1`, with the real port. */
  readonly url: string;
  /** Settles when the model is loaded; rejects when it cannot be. */
  readonly ready: Promise<ReadyInfo>;
  /** Settles when the server has stopped; rejects when the engine died. */
  readonly stopped: Promise<void>;
  /** Refuses new requests and lets running ones finish for at most `graceMs`. */
  shutdown(graceMs: number): Promise<void>;
  /** Ends running requests now. */
  abort(): Promise<void>;
}

/** Binds the port, then loads the model in the background. */
export function serve(options: ServeOptions, ui: ServeUi): Promise<RunningServer> {
  ui.phase('locate', 'start');
  return Promise.reject(new UnsupportedError('unsupported_model', `${options.model} cannot be served yet.`));
}
