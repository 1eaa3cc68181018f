import { createHash } from 'node:crypto';
import { HTML_SCRIPT } from './html-assets.js';
import { escapeHtml } from './html-escape.js';

/** Hides the rows of all tables that lack its text. */
export const FILTER_BOX =
  '<div class="tools"><input type="search" placeholder="Show rows with …" aria-label="Show rows with"></div>';

/**
 * A page that needs nothing else. Its policy forbids the browser to load anything and to run any script but the
 * page's own, whatever the names in it are.
 * @param title text
 * @param body markup: tables whose headings are buttons and whose cells have `data-value`, and FILTER_BOX
 */
export function renderPage(title: string, style: string, body: readonly string[]): string {
  const policy = `default-src 'none'; style-src '${hashOf(style)}'; script-src '${hashOf(HTML_SCRIPT)}'`;
  return [
    '<!doctype html>',
    '<html lang="en">',
    '<head>',
    '<meta charset="utf-8">',
    `<meta http-equiv="Content-Security-Policy" content="${policy}">`,
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    `<title>${escapeHtml(title)}</title>`,
    `<style>${style}</style>`,
    '</head>',
    '<body>',
    `<h1>${escapeHtml(title)}</h1>`,
    ...body,
    `<script>${HTML_SCRIPT}</script>`,
    '</body>',
    '</html>',
    '',
  ].join('\n');
}

function hashOf(text: string): string {
  return `sha256-${createHash('sha256').update(text).digest('base64')}`;
}

/** A list that stands out; nothing for none. */
export function renderWarnings(warnings: readonly string[]): string {
  if (warnings.length === 0) return '';
  return `<ul class="warnings">${warnings.map((line) => `<li>${escapeHtml(line)}</li>`).join('')}</ul>`;
}
