import { CHART_COLORS } from '../../../inspect/html-chart.js';
import { escapeHtml } from '../../../inspect/html-escape.js';
import type { Scale } from './scale.js';

const WIDTH = 560;
const HEIGHT = 320;
const LEFT = 66;
const RIGHT = 32;
const TOP = 32;
const BOTTOM = 44;
const LABEL_HEIGHT = 14;
/** Of a sans-serif letter at the size of the labels. */
const LETTER_WIDTH = 6.6;

export interface Axis {
  readonly title: string;
  readonly scale: Scale;
  readonly format: (value: number) => string;
}

export interface Point {
  readonly x: number;
  readonly y: number;
  /** Shown beside the pointer. */
  readonly tip: string;
  /** Shown beside the point. */
  readonly label?: string;
}

export interface Series {
  readonly name: string;
  readonly points: readonly Point[];
  readonly isLine: boolean;
}

export interface Chart {
  readonly title: string;
  readonly x: Axis;
  readonly y: Axis;
  readonly series: readonly Series[];
  /** A line behind the points, e.g. a Pareto front. */
  readonly front?: readonly Point[];
}

/** A figure with its heading, legend and picture: one inline SVG. */
export function renderChart(chart: Chart): string {
  const { title, x, y, series, front } = chart;
  const place = ({ x: atX, y: atY }: Point): Place => ({
    x: round(LEFT + x.scale.position(atX) * (WIDTH - LEFT - RIGHT)),
    y: round(HEIGHT - BOTTOM - y.scale.position(atY) * (HEIGHT - TOP - BOTTOM)),
  });
  return [
    '<figure>',
    `<figcaption>${escapeHtml(title)}</figcaption>`,
    series.length > 1 ? renderLegend(series) : '',
    `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escapeHtml(title)}">`,
    renderAxes(x, y),
    front === undefined ? '' : `<path class="front" d="${stepPath(front.map(place))}"/>`,
    ...series.map((each, index) => renderSeries(each, index, place)),
    renderLabels(
      series.flatMap(({ points }) => points),
      place,
    ),
    '</svg>',
    '</figure>',
  ].join('\n');
}

interface Place {
  readonly x: number;
  readonly y: number;
}

function colorOf(index: number): string {
  return CHART_COLORS[index % CHART_COLORS.length] ?? '';
}

/** More series than colours are told apart by dashes. */
function dashOf(index: number): string {
  const round = Math.floor(index / CHART_COLORS.length);
  return round === 0 ? '' : ` stroke-dasharray="${6 * round} 3"`;
}

function renderLegend(series: readonly Series[]): string {
  const entries = series.map(({ name }, index) => {
    const line = `<line x1="0" x2="24" y1="6" y2="6" stroke="${colorOf(index)}" stroke-width="3"${dashOf(index)}/>`;
    return `<span><svg width="24" height="12" viewBox="0 0 24 12" aria-hidden="true">${line}</svg>${escapeHtml(name)}</span>`;
  });
  return `<div class="legend">${entries.join('')}</div>`;
}

function renderAxes(x: Axis, y: Axis): string {
  const right = WIDTH - RIGHT;
  const bottom = HEIGHT - BOTTOM;
  const rows = y.scale.ticks.map((tick) => {
    const at = round(bottom - y.scale.position(tick) * (bottom - TOP));
    return (
      `<line class="axis" x1="${LEFT}" x2="${right}" y1="${at}" y2="${at}"/>` +
      `<text x="${LEFT - 6}" y="${at + 4}" text-anchor="end">${escapeHtml(y.format(tick))}</text>`
    );
  });
  const columns = x.scale.ticks.map((tick) => {
    const at = round(LEFT + x.scale.position(tick) * (right - LEFT));
    return (
      `<line class="axis" x1="${at}" x2="${at}" y1="${bottom}" y2="${bottom + 4}"/>` +
      `<text x="${at}" y="${bottom + 17}" text-anchor="middle">${escapeHtml(x.format(tick))}</text>`
    );
  });
  return [
    ...rows,
    ...columns,
    `<text x="${(LEFT + right) / 2}" y="${HEIGHT - 6}" text-anchor="middle">${escapeHtml(x.title)}</text>`,
    `<text x="4" y="14">${escapeHtml(y.title)}</text>`,
  ].join('');
}

function renderSeries({ points, isLine }: Series, index: number, place: (point: Point) => Place): string {
  const color = colorOf(index);
  const path = points
    .map(place)
    .map(({ x, y }) => `${x} ${y}`)
    .join(' L');
  const line = isLine ? `<path class="line" stroke="${color}"${dashOf(index)} d="M${path}"/>` : '';
  const dots = points.map((point) => {
    const { x, y } = place(point);
    return `<circle cx="${x}" cy="${y}" r="${isLine ? 3 : 5}" fill="${color}"><title>${escapeHtml(point.tip)}</title></circle>`;
  });
  return `<g>${line}${dots.join('')}</g>`;
}

/** Right and down, as a front of smaller-is-better figures runs. */
function stepPath(places: readonly Place[]): string {
  const [first, ...others] = places;
  if (first === undefined) return '';
  return `M${first.x} ${first.y} ${others.map(({ x, y }) => `H${x} V${y}`).join(' ')}`;
}

interface Box {
  readonly left: number;
  readonly right: number;
  readonly top: number;
  readonly bottom: number;
}

/** A label stands above, right of, left of or below its point, where it covers no other and no point. */
function renderLabels(points: readonly Point[], place: (point: Point) => Place): string {
  const taken: Box[] = points
    .map(place)
    .map(({ x, y }) => ({ left: x - 5, right: x + 5, top: y - 5, bottom: y + 5 }));
  return points
    .map((point) => {
      if (point.label === undefined) return '';
      const boxes = labelBoxes(place(point), point.label.length * LETTER_WIDTH);
      const box = boxes.find((each) => isInside(each) && !taken.some((other) => overlap(each, other)));
      // Nothing is free: the pointer still finds the name.
      if (box === undefined) return '';
      taken.push(box);
      return `<text class="label" x="${round(box.left)}" y="${round(box.bottom - 3)}">${escapeHtml(point.label)}</text>`;
    })
    .join('');
}

function labelBoxes({ x, y }: Place, width: number): readonly Box[] {
  const boxAt = (left: number, top: number): Box => ({
    left,
    right: left + width,
    top,
    bottom: top + LABEL_HEIGHT,
  });
  const above = y - 6 - LABEL_HEIGHT;
  const middle = y - LABEL_HEIGHT / 2;
  const beside = [middle, above, y - 3, above - LABEL_HEIGHT, y + LABEL_HEIGHT];
  return [
    boxAt(x - width / 2, above),
    ...beside.flatMap((top) => [boxAt(x + 8, top), boxAt(x - 8 - width, top)]),
    boxAt(x - width / 2, y + 6),
  ];
}

function isInside({ left, right, top, bottom }: Box): boolean {
  return left >= LEFT && right <= WIDTH && top >= 0 && bottom <= HEIGHT - BOTTOM;
}

function overlap(a: Box, b: Box): boolean {
  return a.left < b.right && a.right > b.left && a.top < b.bottom && a.bottom > b.top;
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}
