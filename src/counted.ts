/** `1 layer`, `2 layers`; `counted(1, 'entry is', 'entries are')` where more than an s changes. */
export function counted(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}
