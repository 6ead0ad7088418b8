// Marks, frames and fields on one canvas over the viewer. A grid finds the marks in view, so that
// a hundred thousand of them cost no more than what can be seen.

import { LABELS } from "./dom.js";

const RING_UM = 12;
const MIN_RING = 7;
// Beyond this many marks in view each is a dot, and at most one dot is drawn a spot of the screen.
const MAX_SYMBOLS = 2500;
const FAINT = "rgb(120 165 235 / 0.75)";
const COLORS = ["#0a5fd8", "#0b8a43", "#d4560b", "#8a2fd0", "#4d5a6a"];

export class Grid {
  constructor(x, y, width, height) {
    this.cell = Math.max(256, Math.sqrt((width * height) / 20000));
    this.columns = Math.max(1, Math.ceil(width / this.cell));
    this.rows = Math.max(1, Math.ceil(height / this.cell));
    const cells = new Int32Array(x.length);
    this.starts = new Int32Array(this.columns * this.rows + 1);
    for (let i = 0; i < x.length; i++) {
      cells[i] = this.row(y[i]) * this.columns + this.column(x[i]);
      this.starts[cells[i] + 1]++;
    }
    for (let c = 0; c < this.starts.length - 1; c++) this.starts[c + 1] += this.starts[c];
    const next = this.starts.slice();
    this.order = new Int32Array(x.length);
    for (let i = 0; i < x.length; i++) this.order[next[cells[i]]++] = i;
  }

  column(x) { return Math.max(0, Math.min(this.columns - 1, Math.floor(x / this.cell))); }
  row(y) { return Math.max(0, Math.min(this.rows - 1, Math.floor(y / this.cell))); }

  // Calls for each mark in the cells that a rectangle touches.
  within(x0, y0, x1, y1, call) {
    const left = this.column(x0), right = this.column(x1), bottom = this.row(y1);
    for (let row = this.row(y0); row <= bottom; row++) {
      const end = this.starts[row * this.columns + right + 1];
      for (let k = this.starts[row * this.columns + left]; k < end; k++) call(this.order[k]);
    }
  }

  count(x0, y0, x1, y1) {
    const left = this.column(x0), right = this.column(x1), bottom = this.row(y1);
    let count = 0;
    for (let row = this.row(y0); row <= bottom; row++) count += this.starts[row * this.columns + right + 1] - this.starts[row * this.columns + left];
    return count;
  }
}

export class Overlay {
  constructor(canvas, review, view) {
    this.canvas = canvas;
    this.review = review;
    this.view = view; // () => { scale, x, y, width, height }: CSS px = (level-0 px + 0.5) * scale + offset
    this.selected = null;
    this.hidden = false;
    this.field = null;
    this.areas = []; // what is being screened
    this.draft = null;
    this.dragged = null;
    this.renew();
  }

  // Marks have changed.
  renew() {
    const { marks, about } = this.review;
    if (this.grid && this.known === marks.x) return this.draw();
    this.known = marks.x;
    this.grid = new Grid(marks.x, marks.y, about.width_px, about.height_px);
    this.draw();
  }

  draw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      this.drawNow();
    });
  }

  drawNow() {
    const view = this.view();
    if (!view) return;
    const { canvas } = this;
    const ratio = devicePixelRatio || 1;
    const width = Math.round(view.width * ratio), height = Math.round(view.height * ratio);
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.drawAreas(context, view);
    if (!this.hidden) this.drawMarks(context, view);
    this.drawWindows(context, view);
    if (this.field) outline(context, view, corners(this.field), "#111", 2.5, [], "#ffe04d");
    if (this.draft) outline(context, view, corners(this.draft), "#0a5fd8", 2, [6, 4]);
  }

  drawAreas(context, view) {
    const { state } = this.review;
    const fields = Object.values(state.fields);
    if (fields.length) {
      context.fillStyle = "rgb(40 120 60 / 0.16)";
      context.beginPath();
      for (const field of fields) path(context, view, field);
      context.fill("nonzero");
    }
    for (const area of this.areas) outline(context, view, area, "#7a3fa0", 2, [12, 4]);
    for (const region of Object.values(state.regions)) outline(context, view, region, "#0b6b35", 3, [2, 4]);
  }

  drawWindows(context, view) {
    const [hotspot, tenFields] = this.review.summary.windows;
    if (tenFields?.window) outline(context, view, tenFields.window.outline, "#1b3fae", 2, [10, 6]);
    if (hotspot?.window) outline(context, view, hotspot.window.outline, "#111", 3, [], "#ffe04d");
  }

  drawMarks(context, view) {
    const { marks } = this.review;
    const margin = 40 / view.scale;
    const x0 = -view.x / view.scale - margin, y0 = -view.y / view.scale - margin;
    const x1 = (view.width - view.x) / view.scale + margin, y1 = (view.height - view.y) / view.scale + margin;
    if (this.grid.count(x0, y0, x1, y1) > MAX_SYMBOLS) this.drawDots(context, view, [x0, y0, x1, y1]);
    else this.grid.within(x0, y0, x1, y1, (i) => this.drawMark(context, view, i));
    const chosen = this.selected === null ? undefined : this.review.index.get(this.selected);
    if (chosen !== undefined) this.drawMark(context, view, chosen, true);
    this.drawn = marks.id.length;
  }

  drawDots(context, view, [x0, y0, x1, y1]) {
    const { marks } = this.review;
    const columns = Math.ceil(view.width / 3) + 2;
    const taken = new Uint8Array(columns * (Math.ceil(view.height / 3) + 2));
    const places = [...COLORS, FAINT].map(() => []);
    this.grid.within(x0, y0, x1, y1, (i) => {
      const px = (marks.x[i] + 0.5) * view.scale + view.x, py = (marks.y[i] + 0.5) * view.scale + view.y;
      if (px < 0 || py < 0 || px > view.width || py > view.height) return;
      const spot = Math.floor(py / 3) * columns + Math.floor(px / 3);
      const faint = !marks.code[i] && !marks.detected[i] && marks.score !== null;
      const kind = faint ? COLORS.length : marks.code[i];
      if (taken[spot] & (1 << kind)) return;
      taken[spot] |= 1 << kind;
      places[kind].push(px, py);
    });
    // Candidates below the threshold first, so that nothing is hidden under them.
    [places.length - 1, ...COLORS.keys()].forEach((code) => {
      const list = places[code];
      context.fillStyle = [...COLORS, FAINT][code];
      for (let k = 0; k < list.length; k += 2) context.fillRect(list[k] - 1.5, list[k + 1] - 1.5, 3, 3);
    });
  }

  drawMark(context, view, i, chosen = false) {
    const { marks, about } = this.review;
    const id = marks.id[i];
    const [mx, my] = this.dragged?.id === id ? this.dragged.place : [marks.x[i], marks.y[i]];
    const x = (mx + 0.5) * view.scale + view.x, y = (my + 0.5) * view.scale + view.y;
    const radius = Math.max(MIN_RING, (RING_UM / about.mpp) * view.scale);
    const code = marks.code[i];
    const faint = !code && !marks.detected[i] && marks.score !== null;
    const draw = () => {
      context.beginPath();
      shape(context, faint ? "" : LABELS[code - 1], x, y, faint ? radius * 0.7 : radius);
      context.stroke();
    };
    context.setLineDash(faint ? [3, 3] : []);
    context.lineWidth = chosen ? 7 : 4.5;
    context.strokeStyle = chosen ? "#ffe04d" : "rgb(255 255 255 / 0.9)";
    draw();
    context.lineWidth = 2.25;
    context.strokeStyle = COLORS[code];
    draw();
    context.setLineDash([]);
    if (marks.own[i]) {
      context.fillStyle = COLORS[code];
      context.fillRect(x + radius * 0.7, y - radius - 2, 5, 5);
    }
  }

  // The mark under a place of the screen, null where there is none.
  hit(px, py) {
    const view = this.view();
    const { marks, about } = this.review;
    const reach = Math.max(14, (RING_UM / about.mpp) * view.scale);
    const x = (px - view.x) / view.scale - 0.5, y = (py - view.y) / view.scale - 0.5, far = reach / view.scale;
    let best = null, nearest = far;
    this.grid.within(x - far, y - far, x + far, y + far, (i) => {
      const distance = Math.hypot(marks.x[i] - x, marks.y[i] - y);
      if (distance <= nearest) { nearest = distance; best = marks.id[i]; }
    });
    return best;
  }
}

export function corners([x0, y0, x1, y1]) {
  return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]];
}

function path(context, view, points) {
  points.forEach(([x, y], k) => context[k ? "lineTo" : "moveTo"]((x + 0.5) * view.scale + view.x, (y + 0.5) * view.scale + view.y));
  context.closePath();
}

function outline(context, view, points, color, width, dash, casing = "rgb(255 255 255 / 0.85)") {
  context.beginPath();
  path(context, view, points);
  context.lineWidth = width + 3;
  context.strokeStyle = casing;
  context.setLineDash([]);
  context.stroke();
  context.lineWidth = width;
  context.strokeStyle = color;
  context.setLineDash(dash);
  context.stroke();
  context.setLineDash([]);
}

// State by shape too: circle, square, diamond, triangle; an undecided mark is a broken circle.
function shape(context, label, x, y, r) {
  if (label === "look-alike") context.rect(x - r * 0.9, y - r * 0.9, r * 1.8, r * 1.8);
  else if (label === "atypical") { context.moveTo(x, y - r * 1.2); context.lineTo(x + r * 1.2, y); context.lineTo(x, y + r * 1.2); context.lineTo(x - r * 1.2, y); context.closePath(); }
  else if (label === "unsure") { context.moveTo(x, y - r * 1.2); context.lineTo(x + r * 1.1, y + r * 0.8); context.lineTo(x - r * 1.1, y + r * 0.8); context.closePath(); }
  else if (label === "mitosis") context.arc(x, y, r, 0, 2 * Math.PI);
  else for (let k = 0; k < 4; k++) { const from = k * Math.PI / 2 + 0.25; context.moveTo(x + r * Math.cos(from), y + r * Math.sin(from)); context.arc(x, y, r, from, from + Math.PI / 2 - 0.5); }
}
