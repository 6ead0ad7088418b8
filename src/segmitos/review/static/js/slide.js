// The slide: marks where they lie, missed mitoses added, areas screened field by field.

import { LABELS, STATES, ask, button, fill, h, head, symbol, toast } from "./dom.js";
import { uuid } from "./api.js";
import { Overlay, corners } from "./overlay.js";
import { SlideReview } from "./review.js";
import { Screening } from "./screening.js";
import { SlideViewer } from "./viewer.js";

const SIZES = { "5x": 5, "10x": 10, "20x": 20, "40x": 40 };

export async function showSlide({ view, session, go, name, query, stale }) {
  if (!session.viewer) {
    fill(view, h("p", { class: "problem" }, "The slide viewer is not in this installation: run “make viewer” in the checkout, or install a built package. The gallery works without it."));
    return {};
  }
  const review = await new SlideReview(name, session.reader, query.get("as") === "consensus").load();
  const place = h("div", { class: "viewer" });
  const canvas = h("canvas", { class: "marks" });
  const bar = h("i");
  const scale = h("div", { class: "scale" }, h("span"), bar);
  const magnification = h("div", { class: "magnification" });
  const chosen = h("p", { class: "chosen", "aria-live": "polite", hidden: true });
  const tools = h("div", { class: "tools", role: "toolbar", "aria-label": "Tools" });
  fill(view, h("div", { class: "slideview" }, h("div", { class: "canvas" }, place, canvas, magnification, scale, chosen), tools));
  const viewer = await SlideViewer.open(place, review.about);
  if (stale()) { viewer.close(); return {}; }
  const overlay = new Overlay(canvas, review, () => viewer.view());
  const screening = new Screening(review, viewer, overlay);
  const screen = new SlideScreen({ review, viewer, overlay, screening, chosen, tools, go, session });

  const draw = () => {
    overlay.drawNow();
    const shown = viewer.scaleBar();
    scale.firstChild.textContent = shown.text;
    bar.style.width = `${shown.width}px`;
    const times = viewer.magnification;
    magnification.textContent = `${times >= 10 ? times.toFixed(0) : times.toFixed(1)}x`;
  };
  viewer.osd.addHandler("update-viewport", draw);
  viewer.osd.addHandler("resize", draw);
  const changed = () => { overlay.renew(); screen.refresh(); };
  review.addEventListener("change", changed);
  screen.listen();
  screen.refresh();
  viewer.measure();
  const wanted = query.get("mark");
  if (wanted !== null && review.place(wanted)) screen.select(wanted, true);
  else if (query.get("x") !== null) viewer.goTo(Number(query.get("x")), Number(query.get("y")), 40, true);
  else screen.toHotspot(true);
  draw();
  // What a test needs: where a level-0 pixel lies on the screen.
  view.viewer = viewer;
  return {
    keys: screen.keys(),
    keyup: (event) => { if (event.key === " ") screen.hide(false); },
    leave: () => { review.removeEventListener("change", changed); viewer.close(); },
  };
}

class SlideScreen {
  constructor(parts) {
    Object.assign(this, parts);
    this.mode = null;
    this.since = performance.now();
    this.drawTools();
  }

  get selected() { return this.overlay.selected; }

  drawTools() {
    const decide = LABELS.map((label) => button([symbol(label), ` ${STATES[label].text}`], () => this.decide(label), { class: "decide", data: { label } }));
    this.addButton = button(["Add ", h("kbd", {}, "P")], () => this.setMode("add"), { "aria-pressed": "false" });
    this.regionButton = button("Region", () => this.setMode("region"), { "aria-pressed": "false", title: "Drag a rectangle: an area that was looked at whole" });
    this.deleteButton = button("Delete", () => this.remove(), { disabled: true });
    this.follow = button("", () => this.toggleHotspot());
    this.area = h("select", { "aria-label": "Area to screen", onchange: () => this.area.blur() });
    this.screenButton = button("Screen", () => this.screen(), { "aria-pressed": "false" });
    this.fieldText = h("span", { class: "soft", "aria-live": "polite" });
    this.fieldTools = h("span", { class: "row", hidden: true },
      button("Field seen", () => this.seen(), { class: "main" }), button("Back", () => this.field(-1)), button("Next field", () => this.field(1)));
    const zoom = Object.entries(SIZES).map(([text, times]) => button(text, () => this.viewer.magnify(times)));
    const { about } = this.review;
    // In hundredths; 0.55 * 100 is a little more than 55.
    const highest = Math.ceil(about.threshold * 100 - 1e-6);
    this.slider = this.session.blind ? null : h("input", {
      type: "range", min: 0, max: highest, step: 1, value: highest, "aria-label": "Show candidates down to this score",
      oninput: () => { this.sliderText.textContent = this.sliderWord(); }, onchange: () => this.lower(Number(this.slider.value) / 100) });
    this.sliderText = h("span", { class: "soft" }, this.slider ? this.sliderWord() : "");
    const more = button("More", () => { const open = this.tools.classList.toggle("open"); more.setAttribute("aria-expanded", String(open)); }, { class: "more-button", "aria-expanded": "false" });
    const second = h("div", { class: "second" }, this.deleteButton, button("Redo", () => this.review.redo()), button("Comment", () => this.comment()), this.follow, ...zoom,
      button("−", () => this.viewer.zoomBy(1 / 1.5), { "aria-label": "Zoom out" }), button("+", () => this.viewer.zoomBy(1.5), { "aria-label": "Zoom in" }),
      button("Hide", () => this.hide(!this.overlay.hidden), { class: "hide", "aria-pressed": "false" }),
      this.regionButton, this.area, this.screenButton,
      this.slider && h("label", {}, "Candidates", this.slider, this.sliderText));
    fill(this.tools, ...decide, this.addButton, button("Undo", () => this.review.undo()), button("Next", () => this.step(1, true)),
      button("Hotspot", () => this.toHotspot()), more, second, this.fieldTools, this.fieldText);
  }

  sliderWord() {
    const value = Number(this.slider.value) / 100;
    return value >= this.review.about.threshold ? "detections" : `score from ${value.toFixed(2)}`;
  }

  refresh() {
    const { review } = this;
    head(review.headline);
    const fixed = review.state.fixed_hotspot !== null;
    this.follow.textContent = fixed ? "Hotspot: fixed" : "Hotspot: follows";
    this.follow.setAttribute("aria-pressed", String(fixed));
    const areas = [["hotspot", "hotspot"], ["ten fields", "ten fields"], ["tissue", "tissue"], ...Object.keys(review.state.regions).map((id, k) => [id, `region ${k + 1}`])];
    if (this.area.children.length !== areas.length) fill(this.area, ...areas.map(([value, text]) => h("option", { value }, text)));
    const id = this.selected;
    const i = id === null ? undefined : review.index.get(id);
    if (i === undefined) this.overlay.selected = null;
    this.chosen.hidden = i === undefined;
    this.deleteButton.disabled = i === undefined || !review.isOwn(id);
    const label = i === undefined ? null : review.label(id);
    for (const one of this.tools.querySelectorAll(".decide")) one.setAttribute("aria-pressed", String(i !== undefined && one.dataset.label === label));
    if (i !== undefined) {
      const score = review.marks.score?.[i];
      const comment = review.state.comments[id];
      fill(this.chosen, symbol(label), h("b", {}, ` ${label ? STATES[label].text : "Undecided"}`),
        review.isOwn(id) ? " · added" : score === undefined || score === null ? "" : ` · score ${score.toFixed(3)}`, comment ? ` · “${comment}”` : "");
    }
    if (this.screening.active) this.fieldText.textContent = this.screening.text();
  }

  listen() {
    const { osd } = this.viewer;
    let pressed = null;
    osd.addHandler("canvas-click", (event) => {
      if (!event.quick) return;
      event.preventDefaultAction = true;
      if (this.mode === "add") return this.add(event.position);
      if (this.mode === null) this.select(this.overlay.hit(event.position.x, event.position.y));
    });
    osd.addHandler("canvas-double-click", (event) => {
      event.preventDefaultAction = true;
      if (this.mode === null) this.add(event.position);
    });
    osd.addHandler("canvas-press", (event) => {
      const hit = this.mode === null ? this.overlay.hit(event.position.x, event.position.y) : null;
      pressed = this.mode === "region" ? { region: event.position } : hit !== null && hit === this.selected ? { mark: hit, at: event.position } : null;
    });
    osd.addHandler("canvas-drag", (event) => {
      if (!pressed) return;
      event.preventDefaultAction = true;
      if (pressed.region) {
        this.overlay.draft = this.rectangle(pressed.region, event.position);
      } else {
        this.overlay.dragged = { id: pressed.mark, place: this.moved(pressed, event.position) };
      }
      this.overlay.draw();
    });
    osd.addHandler("canvas-drag-end", (event) => {
      if (!pressed) return;
      event.preventDefaultAction = true;
      if (pressed.region) this.addRegion(this.rectangle(pressed.region, event.position));
      else if (this.overlay.dragged) {
        const [x_px, y_px] = this.inside(this.moved(pressed, event.position));
        this.review.do("move", { mark: pressed.mark, x_px, y_px });
      }
      this.overlay.draft = this.overlay.dragged = pressed = null;
      this.overlay.draw();
    });
  }

  // A mark is moved by what the pointer moved, wherever in it the pointer took hold.
  moved(pressed, position) {
    const [x0, y0] = this.viewer.place(pressed.at), [x1, y1] = this.viewer.place(position);
    const [x, y] = this.review.place(pressed.mark);
    return [x + x1 - x0, y + y1 - y0];
  }

  rectangle(from, to) {
    const [x0, y0] = this.inside(this.viewer.place(from)), [x1, y1] = this.inside(this.viewer.place(to));
    return [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)];
  }

  inside([x, y]) {
    const { about } = this.review;
    const rounded = (value, most) => Math.round(Math.max(-0.5, Math.min(most - 0.5, value)) * 100) / 100;
    return [rounded(x, about.width_px), rounded(y, about.height_px)];
  }

  addRegion(box) {
    this.setMode(null);
    if (box[2] - box[0] < 5 || box[3] - box[1] < 5) return;
    this.review.do("region", { mark: `region-${uuid()}`, outline: corners(box), text: "drawn" });
    toast("Region added: say with it that you looked at all of it.");
  }

  setMode(mode) {
    this.mode = this.mode === mode ? null : mode;
    this.addButton.setAttribute("aria-pressed", String(this.mode === "add"));
    this.regionButton.setAttribute("aria-pressed", String(this.mode === "region"));
    if (this.mode === "add") toast("Click the mitosis that was missed.");
    if (this.mode === "region") toast("Drag a rectangle over what you looked at.");
  }

  add(position) {
    const [x, y] = this.viewer.place(position);
    const { about } = this.review;
    if (x < -0.5 || y < -0.5 || x > about.width_px - 0.5 || y > about.height_px - 0.5) return;
    const [x_px, y_px] = this.inside([x, y]);
    const mark = `own-${uuid()}`;
    if (this.review.do("add", { mark, x_px, y_px, label: "mitosis", view_um_per_px: this.viewer.umPerPx })) this.select(mark);
    if (this.mode === "add") this.setMode(null);
  }

  select(id, go = false) {
    this.overlay.selected = id;
    this.since = performance.now();
    if (id !== null && go) this.viewer.goTo(...this.review.place(id), this.viewer.magnification < 15 ? 40 : null);
    this.overlay.draw();
    this.refresh();
  }

  decide(label) {
    if (this.selected === null) return toast("Choose a mark first: click it, or press N for the next undecided.");
    const more = { seen_ms: Math.round(performance.now() - this.since), view_um_per_px: this.viewer.umPerPx };
    const own = this.review.isOwn(this.selected);
    if (this.review.decide([this.selected], label, more) && !own && !this.screening.active) this.step(1, true, true);
  }

  // Next or previous mark in reading order; with `undecided` only those that wait.
  step(by, undecided = false, quiet = false) {
    const { marks } = this.review;
    const ids = [];
    for (let i = 0; i < marks.id.length; i++) if (undecided ? this.review.waits(i) : marks.detected[i] || marks.code[i] || marks.score === null) ids.push(i);
    ids.sort((a, b) => marks.y[a] - marks.y[b] || marks.x[a] - marks.x[b]);
    if (!ids.length) return quiet ? null : toast(undecided ? "Every mark is decided." : "There is no mark.");
    const current = this.selected === null ? undefined : this.review.index.get(this.selected);
    let k = ids.indexOf(current);
    if (k < 0) {
      // The nearest in the order after where one is.
      const [x, y] = current === undefined ? [-1, -1] : [marks.x[current], marks.y[current]];
      k = ids.findIndex((i) => marks.y[i] > y || (marks.y[i] === y && marks.x[i] > x));
      k = (k < 0 ? ids.length : k) - (by > 0 ? 1 : 0);
    }
    this.select(marks.id[ids[(k + by + ids.length) % ids.length]], true);
  }

  remove() {
    const id = this.selected;
    if (id === null) return;
    if (!this.review.isOwn(id)) return toast("The model's marks are rejected (2), never deleted.");
    this.select(null);
    this.review.do("remove", { mark: id });
  }

  async comment() {
    const id = this.selected;
    const text = await ask(id === null ? "Comment on the slide" : "Comment on this mark", this.review.state.comments[id ?? ""] ?? "");
    if (text !== null) this.review.do("comment", id === null ? { text } : { mark: id, text });
  }

  toHotspot(immediately = false) {
    const window = this.review.summary.windows[0]?.window;
    if (!window) return immediately ? this.viewer.home() : toast(`There is no hotspot: ${this.review.summary.windows[0]?.reason || "nothing is counted"}.`);
    const edge = window.width_px * 0.05;
    this.viewer.fit([window.x_px - edge, window.y_px - edge, window.x_px + window.width_px + edge, window.y_px + window.height_px + edge], immediately);
  }

  toggleHotspot() {
    const window = this.review.summary.windows[0]?.window;
    if (this.review.state.fixed_hotspot) this.review.do("hotspot", { mode: "follow" });
    else if (window) this.review.do("hotspot", { mode: "fixed", x_px: window.x_px + window.width_px / 2, y_px: window.y_px + window.height_px / 2 });
  }

  hide(hidden) {
    if (this.overlay.hidden === hidden) return;
    this.overlay.hidden = hidden;
    this.tools.querySelector(".hide").setAttribute("aria-pressed", String(hidden));
    this.overlay.draw();
  }

  async lower(score) {
    await this.review.lower(score >= this.review.about.threshold ? null : score);
    toast(`${this.review.marks.id.length} marks shown`);
  }

  async screen() {
    // The tools take room, and a field is what is left of the screen.
    this.fieldTools.hidden = this.screening.active;
    if (this.screening.active) this.screening.stop();
    else if (!(await this.screening.start(this.area.value))) toast("There is nothing to screen there.");
    this.screenButton.setAttribute("aria-pressed", String(this.screening.active));
    this.fieldTools.hidden = !this.screening.active;
    this.fieldText.textContent = this.screening.active ? this.screening.text() : "";
  }

  field(by) {
    if (!this.screening.active) return this.screen();
    this.screening.step(by);
    this.refresh();
  }

  async seen() {
    if (!this.screening.active) return;
    const done = await this.screening.seen();
    if (done) {
      toast("The whole area is screened; it is a reviewed region now.");
      await this.screen();
    }
    this.refresh();
  }

  keys() {
    const keys = {
      next: () => this.step(1), down: () => this.step(1), previous: () => this.step(-1), up: () => this.step(-1),
      undecided: () => this.step(1, true), undo: () => this.review.undo(), redo: () => this.review.redo(), comment: () => this.comment(),
      hotspot: () => this.toHotspot(), add: () => this.setMode("add"), delete: () => this.remove(), hide: () => this.hide(true),
      in: () => this.viewer.zoomBy(1.5), out: () => this.viewer.zoomBy(1 / 1.5),
      field: () => this.field(1), "field-back": () => this.field(-1), seen: () => this.seen(),
      escape: () => { this.mode = null; this.setMode(null); this.select(null); },
    };
    for (const label of LABELS) keys[label] = () => this.decide(label);
    for (const [text, times] of Object.entries(SIZES)) keys[text] = () => this.viewer.magnify(times);
    return keys;
  }
}
