/** Style of the page: light and dark, no fonts or images from elsewhere. */
export const HTML_STYLE = `
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #6a737d; --line: #d8dee4; --paper: #fff; --band: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #8d96a0; --line: #30363d; --paper: #0d1117; --band: #161b22; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 110rem; padding: 1.5rem; background: var(--paper); color: var(--ink);
  font: 14px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
ul.warnings { border-left: 3px solid #d29922; margin: 1rem 0; padding: .4rem 0 .4rem 1.6rem; background: var(--band); }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
svg .axis { stroke: var(--line); } svg .before { fill: var(--line); } svg g.layer:hover rect { opacity: .7; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; color: var(--soft); }
.legend svg { display: inline-block; width: .8em; height: .8em; margin-right: .4em; }
.tools { margin: .5rem 0; } .tools input { font: inherit; padding: .25rem .5rem; width: min(100%, 24rem); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
th.number, td.number { text-align: right; } thead th { position: sticky; top: 0; background: var(--paper); }
th button { all: unset; cursor: pointer; } th button:focus-visible { outline: 2px solid #0969da; }
th[aria-sort=ascending] button::after { content: " ▲"; } th[aria-sort=descending] button::after { content: " ▼"; }
tbody tr:nth-child(even) { background: var(--band); } td.name { font-family: ui-monospace, monospace; }
td.rule { white-space: normal; min-width: 16rem; color: var(--soft); }
`;

/** Tables sort by a click on a heading; a box hides the rows without its text. */
export const HTML_SCRIPT = `
const sortable = (table) => {
  const body = table.querySelector('tbody');
  const headings = [...table.querySelectorAll('thead th')];
  const rows = [...body.querySelectorAll('tr')];
  const valueOf = (row, at) => row.children[at].dataset.value;
  for (const [at, heading] of headings.entries()) {
    heading.querySelector('button').addEventListener('click', () => {
      const isNumber = heading.classList.contains('number');
      const before = heading.getAttribute('aria-sort');
      const descending = before === null ? isNumber : before === 'ascending';
      for (const other of headings) other.removeAttribute('aria-sort');
      heading.setAttribute('aria-sort', descending ? 'descending' : 'ascending');
      const compare = (a, b) => {
        const x = valueOf(a, at), y = valueOf(b, at);
        if (x === '' || y === '') return (x === '') - (y === '');
        const order = isNumber ? Number(x) - Number(y) || 0 : x.localeCompare(y, 'en', { numeric: true });
        return descending ? -order : order;
      };
      body.append(...[...rows].sort(compare));
    });
  }
  return rows;
};
const rows = [...document.querySelectorAll('table')].flatMap(sortable);
document.querySelector('input').addEventListener('input', (event) => {
  const wanted = event.target.value.toLowerCase();
  for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
});
`;
