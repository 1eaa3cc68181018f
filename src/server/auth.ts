import { createHash, timingSafeEqual } from 'node:crypto';
import { UserError } from '../errors.js';

const BEARER = /^Bearer +(\S+) *$/i;

function digest(key: string): Buffer {
  return createHash('sha256').update(key).digest();
}

/** Checks bearer keys. The work done does not depend on how much of a key is right, nor on which one matches. */
export class KeyChecker {
  readonly #digests: readonly Buffer[];

  constructor(keys: readonly string[]) {
    this.#digests = keys.map(digest);
  }

  get isOpen(): boolean {
    return this.#digests.length === 0;
  }

  /**
   * A name for the key's holder, under which prefixes may be shared; '' when there is only one.
   * @throws UserError `unauthorized` when the header is missing, malformed or names no key.
   */
  check(authorization: string | undefined): string {
    if (this.isOpen) return '';
    const given = authorization === undefined ? undefined : BEARER.exec(authorization)?.[1];
    const candidate = digest(given ?? '');
    let matching = -1;
    this.#digests.forEach((known, i) => {
      if (timingSafeEqual(known, candidate)) matching = i;
    });
    if (given === undefined || matching < 0) {
      throw new UserError(
        'unauthorized',
        given === undefined ? 'No API key was sent.' : 'The API key is not valid.',
        {
          suggestions: [
            'Send the header "Authorization: Bearer <key>" with a key this server was started with.',
          ],
        },
      );
    }
    return this.#digests.length === 1 ? '' : (this.#digests[matching] as Buffer).toString('hex');
  }
}
