// Readers who finished the same slide: how far they agree, where they differ, and who decides.

import { get, slideAddress } from "./api.js";
import { LABELS, STATES, button, fill, h, head, symbol, toast } from "./dom.js";
import { SlideReview } from "./review.js";

export async function showCompare({ view, session, go, name }) {
  head(null);
  let found;
  try {
    found = await get(slideAddress(name, "/compare"));
  } catch (error) {
    if (error.status !== 403) throw error;
    fill(view, h("h1", {}, "Compare"), h("p", { class: "problem" }, `${error.message}.`), button("Finish this review", () => go("finish", name)));
    return {};
  }
  const table = h("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": "Agreement" }, h("p", { class: "soft" }, "Computing the agreement …"));
  const list = h("ol", { class: "votes" });
  const review = found.adjudicates ? await new SlideReview(name, session.reader, true).load() : null;
  let at = 0;

  fill(view, h("h1", {}, "Compare"),
    found.readers.length < 2
      ? h("p", {}, `Two readers must have finished this slide; ${found.readers.length ? `so far ${found.readers.join(", ")} did` : "nobody has yet"}.`)
      : h("p", {}, `${found.readers.join(", ")} finished this slide. They agree on ${found.agreed.length} marks and differ in ${found.differing.length}.`),
    h("h2", {}, "All slides"), table,
    found.readers.length > 1 && [
      h("h2", {}, "Where they differ"),
      review && h("p", { class: "row" },
        button("Take over what all agree on", takeOver), button("Undo", () => review.undo()), button("Redo", () => review.redo()),
        button("Sign the consensus", () => go("finish", name, "?as=consensus"), { class: "main" })),
      found.differing.length ? list : h("p", { class: "soft" }, "Nowhere.")]);
  draw();
  const changed = () => draw();
  review?.addEventListener("change", changed);
  get("/api/agreement").then((content) => drawTable(table, content), (error) => fill(table, h("p", { class: "problem" }, error.message)));

  function draw() {
    fill(list, found.differing.map((unit, index) => {
      const label = review?.label(unit.mark) ?? null;
      return h("li", { class: `vote${index === at ? " current" : ""}`, data: { label: label ?? "waiting" } },
        h("div", { class: "picture", data: { um: 64 } },
          h("img", { src: `/crops/${encodeURIComponent(name)}/at.jpg?um=64&x=${unit.x_px}&y=${unit.y_px}`, alt: "", loading: "lazy", width: 256, height: 256 }),
          h("span", { class: "circle", "aria-hidden": "true" })),
        h("ul", {}, found.readers.map((reader) => { const one = unit.labels[reader]; return h("li", {}, symbol(one), ` ${reader}: ${one ? STATES[one].text : "no mark"}`); })),
        review && h("p", { class: "row" }, LABELS.map((one) => button([symbol(one), ` ${STATES[one].text}`], () => { at = index; decide(one); }, { "aria-pressed": String(one === label) }))),
        button("Show on the slide", () => go("slide", name, `?x=${unit.x_px}&y=${unit.y_px}`)));
    }));
  }

  function settle(unit, label) {
    // A mark that a reader added has no candidate; the consensus adds it at the same place.
    if (unit.mark.startsWith("own-") && !review.place(unit.mark)) return { kind: "add", mark: unit.mark, x_px: unit.x_px, y_px: unit.y_px, label };
    return { kind: "decide", mark: unit.mark, label };
  }

  function decide(label) {
    const unit = found.differing[at];
    if (!review || !unit) return;
    if (review.doAll([settle(unit, label)])) {
      at = Math.min(at + 1, found.differing.length - 1);
      draw();
      list.children[at]?.scrollIntoView({ block: "nearest" });
    }
  }

  function takeOver() {
    const left = found.agreed.filter((unit) => review.label(unit.mark) !== unit.label);
    if (!left.length) return toast("The consensus has them already.");
    for (let k = 0; k < left.length; k += 200) review.doAll(left.slice(k, k + 200).map((unit) => settle(unit, unit.label)));
    toast(`${left.length} marks taken over.`);
  }

  function move(by) {
    at = Math.max(0, Math.min(found.differing.length - 1, at + by));
    draw();
    list.children[at]?.scrollIntoView({ block: "nearest" });
  }

  const keys = { next: () => move(1), down: () => move(1), previous: () => move(-1), up: () => move(-1), undo: () => review?.undo(), redo: () => review?.redo() };
  for (const label of LABELS) keys[label] = () => decide(label);
  return { keys, leave: () => review?.removeEventListener("change", changed) };
}

function drawTable(place, content) {
  if (!content.pairs.length) return fill(place, h("p", { class: "soft" }, "No two readers finished the same slide yet."));
  const figure = (one) => (one.value === null ? "–" : `${one.value.toFixed(2)}${one.low === null ? "" : ` (${one.low.toFixed(2)} to ${one.high.toFixed(2)})`}`);
  fill(place, h("table", {},
    h("thead", {}, h("tr", {}, ["Readers", "Slides", "F", "Kappa", "Score, kappa", "Count, ICC"].map((text) => h("th", { scope: "col" }, text)))),
    h("tbody", {}, content.pairs.map((pair) => h("tr", {}, h("th", { scope: "row" }, `${pair.first}, ${pair.second}`), h("td", {}, String(pair.slides)),
      [pair.f, pair.kappa, pair.score_kappa, pair.count_icc].map((one) => h("td", {}, figure(one))))))));
}
