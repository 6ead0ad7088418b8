// What the gallery shows: the marks of one slide, or those that teach most over all slides.

import { get } from "./api.js";
import { head } from "./dom.js";
import { SlideReview } from "./review.js";

// One slide: the hotspot's marks first, then the rest, nearest the threshold first.
export class SlideDeck extends EventTarget {
  constructor(review) {
    super();
    this.review = review;
    this.filter = "all";
    this.version = 0;
    review.addEventListener("change", () => { this.follow(); this.dispatchEvent(new Event("change")); });
    this.sort();
  }

  sort() {
    const { marks } = this.review;
    const items = this.collect((i) => marks.detected[i] || marks.code[i] || marks.own[i] || !marks.score);
    // Blind readers keep the server's shuffled order.
    if (marks.score) items.sort((a, b) => b.inside - a.inside || a.order - b.order);
    this.items = items;
  }

  // What the filter shows of the marks that are wanted.
  collect(wanted) {
    const { review } = this;
    const { marks, about } = review;
    const inHotspot = insideOf(review.summary.windows[0]?.window);
    const items = [];
    for (let i = 0; i < marks.id.length; i++) {
      if (!wanted(i)) continue;
      const score = marks.score?.[i] ?? null;
      const inside = inHotspot(marks.x[i], marks.y[i]);
      if (this.filter === "waiting" && !review.waits(i)) continue;
      if (this.filter === "hotspot" && !inside) continue;
      items.push({ id: marks.id[i], slide: review.name, x: marks.x[i], y: marks.y[i], score, inside,
        order: marks.score ? Math.abs((score ?? 9) - about.threshold) : i });
    }
    return items;
  }

  // The reader's own marks come and go: by undo and redo, and in other windows.
  follow() {
    const { marks, index } = this.review;
    const left = this.items.filter((item) => index.has(item.id));
    const shown = new Set(left.map((item) => item.id));
    const come = this.collect((i) => marks.own[i] && !shown.has(marks.id[i]));
    if (left.length === this.items.length && !come.length) return;
    this.items = [...left, ...come];
    this.version++;
  }

  async reload(filter) {
    this.filter = filter;
    this.sort();
  }

  reviewOf() { return this.review; }
  label(item) { return this.review.label(item.id); }
  waits(item) { return this.label(item) === null && (this.review.marks.score === null || this.review.marks.detected[this.review.index.get(item.id)] === 1); }
  head() { head(this.review.headline); }
  decide(items, label, more) { return this.review.decide(items.map((item) => item.id), label, more); }
  async undo() { await this.review.undo(); }
  async redo() { await this.review.redo(); }
}

// All slides: the server's order. Reviews are opened when first needed.
export class TrainingDeck extends EventTarget {
  static async open(session) {
    const deck = new TrainingDeck();
    deck.session = session;
    deck.reviews = new Map();
    deck.done = [];
    deck.undone = [];
    await deck.reload();
    return deck;
  }

  async reload() {
    const { marks, undecided } = await get("/api/queue");
    this.total = undecided;
    this.decided = 0;
    this.items = marks.map((mark) => ({ id: mark.id, slide: mark.slide, x: mark.x_px, y: mark.y_px, score: null, inside: false }));
    for (const name of new Set(this.items.map((item) => item.slide))) {
      if (this.reviews.has(name)) continue;
      const review = await new SlideReview(name, this.session.reader).load({ marks: false });
      review.addEventListener("change", () => this.dispatchEvent(new Event("change")));
      this.reviews.set(name, review);
    }
  }

  reviewOf(item) { return this.reviews.get(item.slide); }
  label(item) { return this.reviewOf(item).label(item.id); }
  waits(item) { return this.label(item) === null; }

  head() {
    const left = this.total - this.items.filter((item) => !this.waits(item)).length;
    head(`Training: nearest the threshold first, over all slides; ${left} undecided`);
  }

  decide(items, label, more) {
    this.undone = [];
    for (const name of new Set(items.map((item) => item.slide))) {
      const review = this.reviews.get(name);
      if (!review.decide(items.filter((item) => item.slide === name).map((item) => item.id), label, more)) return false;
      for (const item of items) if (item.slide === name) this.done.push(name);
    }
    return true;
  }

  async undo() {
    const name = this.done.pop();
    if (name === undefined) return;
    this.undone.push(name);
    await this.reviews.get(name).undo();
  }

  async redo() {
    const name = this.undone.pop();
    if (name === undefined) return;
    this.done.push(name);
    await this.reviews.get(name).redo();
  }
}

export function insideOf(window) {
  if (!window) return () => false;
  const x0 = window.x_px, y0 = window.y_px, x1 = x0 + window.width_px, y1 = y0 + window.height_px;
  if (window.shape !== "circle") return (x, y) => x >= x0 && x <= x1 && y >= y0 && y <= y1;
  return (x, y) => Math.hypot(x - (x0 + x1) / 2, y - (y0 + y1) / 2) <= window.width_px / 2;
}
