// One slide's review: the model's marks, the reader's state, and events on their way to the server.
// What was done shows at once; it is kept in the browser until the server has acknowledged it.

import { get, post, slideAddress, uuid } from "./api.js";
import { LABELS, banner, toast } from "./dom.js";

const MAX_SENT = 200;
const SLOW_MS = 700;
// The review is signed or of other marks by now, or the slide is gone.
const NOTHING_FITS = [404, 409];

export class SlideReview extends EventTarget {
  constructor(name, who, consensus = false) {
    super();
    this.name = name;
    this.who = consensus ? "consensus" : who;
    this.consensus = consensus;
    this.pending = [];
    this.columns = { id: [], x_px: [], y_px: [], score: null, detected: null };
    this.floor = null;
  }

  async load({ marks = true } = {}) {
    const [about, columns] = await Promise.all([
      get(slideAddress(this.name, "", this.consensus)),
      marks ? get(slideAddress(this.name, this.floor === null ? "/marks" : `/marks?floor=${this.floor}`, this.consensus)) : this.columns,
    ]);
    this.about = about;
    this.columns = columns;
    this.take(about);
    this.restore();
    this.rebuild();
    this.flush();
    return this;
  }

  // Fetches the candidates down to another score.
  async lower(floor) {
    this.floor = floor;
    const address = floor === null ? "/marks" : `/marks?floor=${floor}`;
    this.columns = await get(slideAddress(this.name, address, this.consensus));
    this.rebuild();
  }

  take(answer) {
    this.state = answer.state;
    const before = this.summary;
    this.summary = answer.summary;
    if (before) this.tellIfMoved(before, answer.summary);
  }

  tellIfMoved(before, now) {
    const a = before.windows[0]?.window;
    const b = now.windows[0]?.window;
    if (a && b && Math.hypot(a.x_px - b.x_px, a.y_px - b.y_px) > a.width_px / 50) toast("The hotspot has moved.");
  }

  get storageKey() {
    return `segmitos-pending|${this.who}|${this.about.model}|${this.name}`;
  }

  restore() {
    if (this.pending.length) return;
    try {
      this.pending = JSON.parse(localStorage.getItem(this.storageKey) ?? "[]");
    } catch {
      this.pending = [];
    }
  }

  keep() {
    try {
      if (this.pending.length) localStorage.setItem(this.storageKey, JSON.stringify(this.pending));
      else localStorage.removeItem(this.storageKey);
    } catch { /* no room or no permission: the events are still in memory */ }
  }

  // All marks as arrays: the model's candidates, then the reader's own.
  rebuild() {
    const labels = new Map(Object.entries(this.state.labels));
    const added = new Map(Object.entries(this.state.added));
    const moved = new Map(Object.entries(this.state.moved));
    for (const event of this.pending) {
      if (event.kind === "decide") labels.set(event.mark, event.label);
      else if (event.kind === "add") { added.set(event.mark, [event.x_px, event.y_px]); labels.set(event.mark, event.label); }
      else if (event.kind === "move") (added.has(event.mark) ? added : moved).set(event.mark, [event.x_px, event.y_px]);
      else if (event.kind === "remove") { if (added.delete(event.mark)) labels.delete(event.mark); }
    }
    const { id, x_px, y_px, score, detected } = this.columns;
    const count = id.length + added.size;
    const marks = {
      id: [...id, ...added.keys()],
      x: concatenate(x_px, [...added.values()].map((place) => place[0])),
      y: concatenate(y_px, [...added.values()].map((place) => place[1])),
      code: new Uint8Array(count), detected: new Uint8Array(count), own: new Uint8Array(count),
      score: score ?? null,
    };
    marks.own.fill(1, id.length);
    if (detected) marks.detected.set(detected);
    this.index = new Map();
    for (let i = 0; i < count; i++) this.index.set(marks.id[i], i);
    for (const [mark, label] of labels) {
      const i = this.index.get(mark);
      if (i !== undefined) marks.code[i] = LABELS.indexOf(label) + 1;
    }
    for (const [mark, [x, y]] of moved) {
      const i = this.index.get(mark);
      if (i !== undefined) { marks.x[i] = x; marks.y[i] = y; }
    }
    this.marks = marks;
    this.labels = labels;
    this.moved = moved;
    this.dispatchEvent(new Event("change"));
  }

  label(mark) {
    return this.labels.get(mark) ?? null;
  }

  place(mark) {
    const i = this.index.get(mark);
    return i === undefined ? null : [this.marks.x[i], this.marks.y[i]];
  }

  isOwn(mark) {
    return mark.startsWith("own-");
  }

  get finished() {
    return this.state.finished !== null;
  }

  // Whether a mark waits for a decision: a detection, or any mark that a blind reader is shown.
  waits(i) {
    return !this.marks.code[i] && (this.columns.detected === undefined || this.columns.detected === null || this.marks.detected[i] === 1);
  }

  do(kind, more = {}) {
    return this.doAll([{ kind, ...more }]);
  }

  doAll(events) {
    if (this.finished) {
      toast("This review is signed. Take the signature back first (Finish).");
      return false;
    }
    this.pending.push(...events.map((event) => ({ id: uuid(), at: new Date().toISOString(), ...event })));
    this.keep();
    this.rebuild();
    this.flush();
    return true;
  }

  decide(marks, label, more = {}) {
    return this.doAll(marks.map((mark) => ({ kind: "decide", mark, label, ...more })));
  }

  undo() { return this.inTurn("undo", "Nothing to undo."); }
  redo() { return this.inTurn("redo", "Nothing to redo."); }

  // One after the other: asked before the last one is answered, the server names the same event.
  inTurn(which, nothing) {
    this.turn = (this.turn ?? Promise.resolve()).then(() => this.takeBack(which, nothing));
    return this.turn;
  }

  async takeBack(which, nothing) {
    // The server says what is next; it must have everything before.
    await this.flush();
    if (!this.state[which]) return toast(nothing);
    if (this.finished) return toast("This review is signed. Take the signature back first (Finish).");
    this.do("undo", { mark: this.state[which] });
    await this.flush();
  }

  // Where the count stands. The server counts, so that it lags behind what is on its way there.
  get headline() {
    return `${this.isSlow ? "Saving … " : ""}${this.summary.headline}`;
  }

  setSlow(isSlow) {
    if (Boolean(this.isSlow) === isSlow) return;
    this.isSlow = isSlow;
    this.dispatchEvent(new Event("change"));
  }

  flush() {
    if (!this.flushing) {
      const timer = setTimeout(() => this.setSlow(true), SLOW_MS);
      this.flushing = this.sendAll().finally(() => {
        clearTimeout(timer);
        this.flushing = null;
        this.setSlow(false);
      });
    }
    return this.flushing;
  }

  async sendAll() {
    let wait = 500, most = MAX_SENT, lost = 0, why = "";
    while (this.pending.length) {
      const batch = this.pending.slice(0, most);
      try {
        const answer = await post(slideAddress(this.name, "/events", this.consensus), { model: this.about.model, events: batch });
        this.pending.splice(0, batch.length);
        this.keep();
        this.take(answer);
        this.rebuild();
        banner(null);
        wait = 500;
      } catch (error) {
        if (![400, ...NOTHING_FITS, 413].includes(error.status)) {
          banner(`Not saved yet: ${error.message}. What you did is kept here and sent again.`);
          await new Promise((done) => setTimeout(done, wait));
          wait = Math.min(wait * 2, 8000);
          continue;
        }
        const whole = NOTHING_FITS.includes(error.status);
        if (!whole && batch.length > 1) {
          // The server stores all of a batch or nothing: alone, one that is refused loses no other.
          most = 1;
          continue;
        }
        lost += this.pending.splice(0, whole ? this.pending.length : 1).length;
        why = error.message;
        this.keep();
      }
    }
    if (!lost) return;
    banner(`Not saved, ${lost === 1 ? "one action" : `${lost} actions`}: ${why}.`);
    this.take(await get(slideAddress(this.name, "", this.consensus)));
    this.rebuild();
  }
}

function concatenate(first, second) {
  const all = new Float64Array(first.length + second.length);
  all.set(first);
  all.set(second, first.length);
  return all;
}
