// A row a slide, uncertain scores first.

import { get, tileAddress } from "./api.js";
import { button, fill, h } from "./dom.js";

const WORDS = { new: "new", open: "open", finished: "finished" };

export async function showWorklist({ view, session, go }) {
  const { slides } = await get("/api/slides");
  const list = h("ul", { class: "slides" });
  const number = h("span", { class: "soft", role: "status" });
  const text = h("input", { type: "search", placeholder: "Filter by name or note", "aria-label": "Filter by name or note", oninput: draw });
  const state = h("select", { "aria-label": "Filter by state", onchange: draw },
    [["", "all states"], ["new", "new"], ["open", "open"], ["finished", "finished"], ["uncertain", "uncertain score"]]
      .filter(([value]) => value !== "uncertain" || !session.blind)
      .map(([value, name]) => h("option", { value }, name)));

  function draw() {
    const wanted = text.value.trim().toLowerCase();
    const chosen = slides.filter((slide) =>
      (!wanted || `${slide.name} ${slide.title} ${slide.note}`.toLowerCase().includes(wanted)) &&
      (!state.value || (state.value === "uncertain" ? slide.model?.uncertain : slide.state === state.value)));
    number.textContent = `${chosen.length} of ${slides.length} slides`;
    fill(list, ...chosen.map((slide) => row(slide)));
    select(0, false);
  }

  let at = 0;
  function select(index, focus = true) {
    const rows = [...list.children];
    if (!rows.length) return;
    at = Math.max(0, Math.min(index, rows.length - 1));
    if (focus) rows[at].querySelector("a").focus();
  }

  fill(view,
    h("h1", {}, "Worklist"),
    h("div", { class: "row filters" }, text, state, number,
      session.mode === "training" && button("Start: what teaches most", () => go("train"), { class: "main" })),
    list,
    h("p", { class: "soft" }, "For research use only. Not for diagnosis."));
  draw();
  return { keys: {
    next: () => select(at + 1), down: () => select(at + 1), previous: () => select(at - 1), up: () => select(at - 1),
    seen: () => list.children[at]?.querySelector("a").click(),
  } };
}

function row(slide) {
  const href = `#/check/${encodeURIComponent(slide.name)}`;
  return h("li", { class: "slide", data: { state: slide.state } },
    slide.image
      ? h("img", { src: tileAddress(slide.name, slide.levels - 1, 0, 0), alt: "", loading: "lazy", width: 96, height: 96, onerror: (event) => event.target.replaceWith(h("span", { class: "noimage" }, "no picture")) })
      : h("span", { class: "noimage" }, "slide not found: start with --slides DIR"),
    h("div", { class: "about" },
      h("a", { href, class: "name" }, slide.title),
      h("span", { class: `state ${slide.state}` }, slide.state === "open" ? `${slide.decided} of ${slide.total} decided` : WORDS[slide.state]),
      slide.model?.uncertain && h("span", { class: "state uncertain" }, "uncertain score"),
      h("span", { class: "soft" }, slide.readers.map((reader) => `${reader.name} (${reader.state})`).join(", ")),
      slide.note && h("span", { class: "note" }, slide.note)),
    h("dl", { class: "figures" },
      slide.model && (slide.model.hotspot === null
        ? figure("Model, in all", slide.model.count, slide.model.scores)
        : figure("Model, hotspot", slide.model.hotspot, slide.model.scores)),
      slide.reviewed && (slide.reviewed.hotspot === null
        ? figure("Reviewed, in all", slide.reviewed.count, slide.reviewed.scores)
        : figure("Reviewed, hotspot", slide.reviewed.hotspot, slide.reviewed.scores))));
}

function figure(title, count, scores) {
  return h("div", {}, h("dt", {}, title),
    h("dd", {}, h("b", {}, String(count)), scores.map((score) => ` · ${score.system} ${score.score}`)));
}
