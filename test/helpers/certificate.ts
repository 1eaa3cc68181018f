import { createSign, generateKeyPairSync } from 'node:crypto';

export interface Certificate {
  /** PEM */
  readonly key: string;
  readonly cert: string;
}

/** Tags of ASN.1's distinguished encoding (ITU-T X.690). */
const [INTEGER, BIT_STRING, OCTET_STRING, OBJECT_ID, UTF8_STRING, UTC_TIME] = [2, 3, 4, 6, 12, 23];
const [SEQUENCE, SET, IP_ADDRESS, VERSION, EXTENSIONS] = [0x30, 0x31, 0x87, 0xa0, 0xa3];
const ECDSA_WITH_SHA256 = Buffer.from('2a8648ce3d040302', 'hex');
const COMMON_NAME = Buffer.from('550403', 'hex');
const ALTERNATIVE_NAME = Buffer.from('551d11', 'hex');
const LOCALHOST = Buffer.of(127, 0, 0, 1);
const VERSION_3 = Buffer.of(2);
const DAY_MS = 86_400_000;

/** A certificate of 127.0.0.1, valid since yesterday and until tomorrow, that nobody else has signed (RFC 5280, section 4.1). */
export function createCertificate(): Certificate {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  const algorithm = encode(SEQUENCE, encode(OBJECT_ID, ECDSA_WITH_SHA256));
  const person = encode(
    SEQUENCE,
    encode(
      SET,
      encode(SEQUENCE, encode(OBJECT_ID, COMMON_NAME), encode(UTF8_STRING, Buffer.from('fdq test'))),
    ),
  );
  const address = encode(SEQUENCE, encode(IP_ADDRESS, LOCALHOST));
  const extension = encode(SEQUENCE, encode(OBJECT_ID, ALTERNATIVE_NAME), encode(OCTET_STRING, address));
  const body = encode(
    SEQUENCE,
    encode(VERSION, encode(INTEGER, VERSION_3)),
    encode(INTEGER, Buffer.of(1)),
    algorithm,
    person,
    encode(SEQUENCE, timeOf(Date.now() - DAY_MS), timeOf(Date.now() + DAY_MS)),
    person,
    publicKey.export({ type: 'spki', format: 'der' }),
    encode(EXTENSIONS, encode(SEQUENCE, extension)),
  );
  const signature = createSign('sha256').update(body).sign(privateKey);
  const whole = encode(SEQUENCE, body, algorithm, encode(BIT_STRING, Buffer.of(0), signature));
  return {
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    cert: `-----BEGIN CERTIFICATE-----\n${whole.toString('base64')}\n-----END CERTIFICATE-----\n`,
  };
}

function encode(tag: number, ...contents: readonly Buffer[]): Buffer {
  const content = Buffer.concat(contents);
  const { length } = content;
  const header = length < 128 ? [tag, length] : [tag, 0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from(header), content]);
}

/** `YYMMDDHHMMSSZ` */
function timeOf(ms: number): Buffer {
  const digits = new Date(ms).toISOString().replaceAll(/\D/g, '').slice(2, 14);
  return encode(UTC_TIME, Buffer.from(`${digits}Z`));
}
