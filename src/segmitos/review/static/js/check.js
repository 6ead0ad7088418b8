// The gallery: crops to be settled by keys, one after the other, or several at once.

import { cropAddress, post, slideAddress } from "./api.js";
import { LABELS, STATES, ask, button, fill, h, symbol, toast } from "./dom.js";
import { SlideDeck, TrainingDeck } from "./deck.js";
import { SlideReview } from "./review.js";

const SIZES = [32, 64, 128];
const PAGE = 60;

export async function showCheck({ view, session, go, name, query }) {
  const consensus = query.get("as") === "consensus";
  const review = await new SlideReview(name, session.reader, consensus).load();
  const deck = new SlideDeck(review);
  return gallery(view, deck, {
    consensus,
    toSlide: (item) => go("slide", name, item ? `?mark=${encodeURIComponent(item.id)}` : ""),
    before: earlierMarks(review, view),
    filters: [["all", "all marks"], ["waiting", "to decide"], ...(session.blind ? [] : [["hotspot", "in the hotspot"]])],
    toFinish: () => go("finish", name),
  });
}

export async function showTraining({ view, session, go }) {
  const deck = await TrainingDeck.open(session);
  return gallery(view, deck, {
    toSlide: (item) => item && go("slide", item.slide, `?mark=${encodeURIComponent(item.id)}`),
    filters: [],
  });
}

// A review of the same slide under an earlier model or earlier settings can be taken over.
function earlierMarks(review) {
  if (!review.about.earlier_marks || review.state.undo || review.finished) return null;
  const box = h("p", { class: "notice" },
    `You reviewed this slide under another model or other settings (${review.about.earlier_marks} decisions). `,
    button("Take them over", async () => {
      const answer = await post(slideAddress(review.name, "/link", review.consensus), {});
      toast(`${answer.linked} decisions linked to these marks within 7.5 µm, ${answer.added} kept as added marks, ${answer.left} left out: no mitoses, and there is no mark here.`);
      review.take(answer);
      await review.load();
      box.remove();
    }));
  return box;
}

function gallery(view, deck, options) {
  let at = 0;
  let anchor = 0;
  let page = 0;
  let um = SIZES.includes(Number(localStorage.getItem("segmitos-um"))) ? Number(localStorage.getItem("segmitos-um")) : 64;
  let ring = localStorage.getItem("segmitos-ring") !== "off";
  let since = performance.now();

  const grid = h("div", { class: "crops", role: "listbox", "aria-label": "Marks", "aria-multiselectable": "true" });
  const large = h("div", { class: "large" });
  const facts = h("p", { class: "facts", "aria-live": "polite" });
  const pager = h("p", { class: "row pager" });
  const actions = h("div", { class: "actions", role: "toolbar", "aria-label": "Decisions" },
    LABELS.map((label) => button([symbol(label), ` ${STATES[label].text} `, h("kbd", {}, STATES[label].key)], () => decide(label), { class: "decide", data: { label } })),
    button(["Undo ", h("kbd", {}, "Z")], () => takeBack("undo")), button(["Redo ", h("kbd", {}, "⇧Z")], () => takeBack("redo")),
    button(["Next ", h("kbd", {}, "N")], () => nextUndecided()), button(["Comment ", h("kbd", {}, "C")], comment),
    button(["Slide ", h("kbd", {}, "S")], () => options.toSlide(deck.items[at])));
  const sizes = h("span", { class: "row", role: "group", "aria-label": "Size of the crops" },
    SIZES.map((size) => button(`${size} µm`, () => resize(size), { data: { um: size } })),
    button("Ring", () => toggleRing(), { class: "ring-button" }));
  const filter = options.filters.length > 1 && h("select", { "aria-label": "Which marks", onchange: (event) => { event.target.blur(); refilter(event.target.value); } },
    options.filters.map(([value, text]) => h("option", { value }, text)));
  fill(view,
    options.before ?? "",
    h("div", { class: "check" },
      h("section", { class: "stage", "aria-label": "Mark" }, large, facts, actions),
      h("section", { class: "sheet", "aria-label": "Gallery" }, h("div", { class: "row filters" }, filter, sizes, pager), grid,
        options.toFinish && h("p", { class: "row" }, button("Finish and sign", options.toFinish, { class: "main" })))));

  function address(item) {
    const place = deck.reviewOf(item).moved?.get(item.id);
    return cropAddress(item.slide, item.id, um, place ? place.map(Math.round).join("_") : "", options.consensus);
  }

  function drawPage() {
    const start = page * PAGE;
    fill(grid, ...deck.items.slice(start, start + PAGE).map((item, offset) => {
      const index = start + offset;
      return h("button", { type: "button", class: "crop", role: "option", tabIndex: -1, data: { index, id: item.id },
        onclick: (event) => choose(index, event.shiftKey) },
        h("img", { fetchPriority: "low", src: address(item), alt: "", loading: "lazy", width: 128, height: 128 }),
        h("span", { class: "mark" }));
    }));
    const pages = Math.ceil(deck.items.length / PAGE);
    fill(pager, ...pages > 1 ? [
      button("‹", () => choose((page - 1) * PAGE), { disabled: page === 0, "aria-label": "Earlier marks" }),
      h("span", {}, `${start + 1}–${Math.min(start + PAGE, deck.items.length)} of ${deck.items.length}`),
      button("›", () => choose((page + 1) * PAGE), { disabled: page >= pages - 1, "aria-label": "Later marks" })] : []);
    drawStates();
  }

  function drawStates() {
    const [low, high] = [Math.min(at, anchor), Math.max(at, anchor)];
    for (const element of grid.children) {
      const index = Number(element.dataset.index);
      const item = deck.items[index];
      const label = deck.label(item);
      element.dataset.label = label ?? (deck.waits(item) ? "waiting" : "none");
      element.querySelector(".mark").textContent = label ? STATES[label].sign : "";
      element.setAttribute("aria-selected", String(index >= low && index <= high));
      element.classList.toggle("current", index === at);
      const inside = item.inside ? ", in the hotspot" : "";
      element.setAttribute("aria-label", `Mark ${index + 1}: ${label ? STATES[label].text : "undecided"}${inside}`);
    }
    const item = deck.items[at];
    deck.head();
    if (!item) {
      fill(large, h("p", { class: "soft" }, "There is nothing here to check."));
      return fill(facts);
    }
    const label = deck.label(item);
    large.dataset.label = label ?? "waiting";
    for (const element of actions.querySelectorAll(".decide")) element.setAttribute("aria-pressed", String(element.dataset.label === label));
    const comment = deck.reviewOf(item).state.comments[item.id];
    fill(facts, symbol(label), h("b", {}, ` ${label ? STATES[label].text : "Undecided"}`),
      ` · ${at + 1} of ${deck.items.length}`, item.score === null ? "" : ` · score ${item.score.toFixed(3)}`,
      item.inside ? " · in the hotspot" : "", options.filters.length ? "" : ` · ${item.slide}`, comment ? ` · “${comment}”` : "");
  }

  function drawLarge() {
    const item = deck.items[at];
    since = performance.now();
    if (!item) return drawStates();
    const src = address(item);
    const shown = large.querySelector("img");
    if (shown?.getAttribute("src") !== src) {
      fill(large, h("img", { src, alt: `Mark ${at + 1} in its surroundings, ${um} µm wide`, width: 384, height: 384 }),
        h("span", { class: "circle", "aria-hidden": "true" }));
      large.dataset.um = um;
    }
    // The next one is fetched ahead, so that it is there when the key is pressed.
    const next = following();
    if (next >= 0) new Image().src = address(deck.items[next]);
    drawStates();
  }

  function choose(index, extend = false) {
    if (!deck.items.length) return drawLarge();
    at = Math.max(0, Math.min(index, deck.items.length - 1));
    if (!extend) anchor = at;
    if (Math.floor(at / PAGE) !== page) {
      page = Math.floor(at / PAGE);
      drawPage();
    }
    drawLarge();
    // On a narrow screen the gallery lies below the mark, which must stay in view.
    if (matchMedia("(min-width: 761px)").matches) grid.querySelector(`[data-index="${at}"]`)?.scrollIntoView({ block: "nearest" });
  }

  function following() {
    const { items } = deck;
    for (let step = 1; step <= items.length; step++) {
      const index = (at + step) % items.length;
      if (deck.waits(items[index])) return index;
    }
    return -1;
  }

  function nextUndecided(quiet = false) {
    const next = following();
    if (next >= 0) return choose(next);
    if (quiet) choose(Math.min(at + 1, deck.items.length - 1));
    else toast("Every mark here is decided.");
  }

  function decide(label) {
    if (!deck.items.length) return;
    const several = deck.items.slice(Math.min(at, anchor), Math.max(at, anchor) + 1);
    at = Math.max(at, anchor);
    const more = { seen_ms: Math.round(performance.now() - since), view_um_per_px: um / 384 };
    if (deck.decide(several, label, more)) nextUndecided(true);
  }

  async function takeBack(which) {
    const before = new Map(deck.items.map((item) => [item.id, deck.label(item)]));
    await deck[which]();
    const changed = deck.items.findIndex((item) => deck.label(item) !== before.get(item.id));
    if (changed >= 0) choose(changed);
  }

  async function comment() {
    const item = deck.items[at];
    if (!item) return;
    const review = deck.reviewOf(item);
    const text = await ask(`Comment on mark ${at + 1}`, review.state.comments[item.id] ?? "");
    if (text !== null) {
      review.do("comment", { mark: item.id, text });
      await review.flush();
    }
  }

  function resize(size) {
    um = size;
    localStorage.setItem("segmitos-um", String(um));
    for (const element of sizes.querySelectorAll("[data-um]")) element.setAttribute("aria-pressed", String(Number(element.dataset.um) === um));
    drawPage();
    drawLarge();
  }

  function toggleRing() {
    ring = !ring;
    localStorage.setItem("segmitos-ring", ring ? "on" : "off");
    view.classList.toggle("without-ring", !ring);
    sizes.querySelector(".ring-button").setAttribute("aria-pressed", String(ring));
  }

  async function refilter(value) {
    await deck.reload(value);
    at = anchor = page = 0;
    drawPage();
    drawLarge();
  }

  function columns() {
    const first = grid.firstElementChild;
    if (!first) return 1;
    return [...grid.children].filter((one) => one.offsetTop === first.offsetTop).length;
  }

  let waiting = 0;
  let version = deck.version;
  const draw = () => {
    if (deck.version === version) return drawStates();
    version = deck.version;
    at = anchor = Math.max(0, Math.min(at, deck.items.length - 1));
    page = Math.floor(at / PAGE);
    drawPage();
    drawLarge();
  };
  const redraw = () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(draw); };
  deck.addEventListener("change", redraw);
  ring = !ring;
  toggleRing();
  resize(um);
  const first = deck.items.findIndex((item) => deck.waits(item));
  choose(Math.max(0, first));
  const keys = {
    next: (event) => choose(at + 1, event.shiftKey), previous: (event) => choose(at - 1, event.shiftKey),
    down: (event) => choose(at + columns(), event.shiftKey), up: (event) => choose(at - columns(), event.shiftKey),
    undecided: () => nextUndecided(), undo: () => takeBack("undo"), redo: () => takeBack("redo"), comment,
    slide: () => options.toSlide(deck.items[at]), ring: toggleRing,
    smaller: () => resize(SIZES[Math.max(0, SIZES.indexOf(um) - 1)]),
    larger: () => resize(SIZES[Math.min(SIZES.length - 1, SIZES.indexOf(um) + 1)]),
    delete: () => removeOwn(),
    hotspot: () => { const index = deck.items.findIndex((item) => item.inside); if (index >= 0) choose(index); },
    escape: () => choose(at),
  };
  for (const label of LABELS) keys[label] = () => decide(label);

  function removeOwn() {
    const item = deck.items[at];
    if (!item || !item.id.startsWith("own-")) return toast("Only marks of your own can be deleted; reject the model's with 2.");
    deck.reviewOf(item).do("remove", { mark: item.id });
  }

  return { keys, leave: () => { deck.removeEventListener("change", redraw); view.classList.remove("without-ring"); } };
}
