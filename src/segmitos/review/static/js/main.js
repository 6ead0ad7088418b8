// Routes and keys. A screen is a function that fills the view and returns what it does with keys.

import { get, readAs } from "./api.js";
import { banner, button, fill, h, head, undecidedCounts } from "./dom.js";
import { KEYS, actionOf } from "./keys.js";
import { showWorklist } from "./worklist.js";
import { showCheck, showTraining } from "./check.js";
import { showSlide } from "./slide.js";
import { showCompare } from "./compare.js";
import { showFinish } from "./finish.js";

const SCREENS = {
  "": showWorklist, train: showTraining, check: showCheck, slide: showSlide, compare: showCompare, finish: showFinish,
};
const TABS = [["check", "Check", "G"], ["slide", "Slide", "S"], ["compare", "Compare", ""], ["finish", "Finish", ""]];

let session = null;
let screen = {};
let current = { route: "", name: null };
let shown = 0;

function go(route, name = null, more = "") {
  location.hash = `#/${route}${name === null ? "" : `/${encodeURIComponent(name)}`}${more}`;
}

function readHash() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [route, name] = path.split("/");
  return { route, name: name === undefined ? null : decodeURIComponent(name), query: new URLSearchParams(query) };
}

async function show() {
  if (!session) return;
  const number = ++shown;
  current = readHash();
  screen.leave?.();
  screen = {};
  head(null);
  const view = document.getElementById("view");
  view.className = `screen-${current.route || "worklist"}`;
  fill(view, h("p", { class: "soft wait" }, "Loading …"));
  drawTabs();
  const mount = SCREENS[current.route] ?? showWorklist;
  document.title = current.name ? `${current.name} – SegMitos review` : "SegMitos review";
  try {
    const made = await mount({ view, session, go, name: current.name, query: current.query, stale: () => number !== shown });
    if (number !== shown) made?.leave?.();
    else screen = made ?? {};
  } catch (error) {
    if (number !== shown) return;
    if (!error.status && error.status !== 0) throw error;
    fill(view, h("p", { class: "problem" }, `This cannot be shown: ${error.message}.`), button("Worklist", () => go("")));
  }
}

function drawTabs() {
  const tabs = document.getElementById("tabs");
  if (current.name === null) return fill(tabs);
  fill(tabs, ...TABS.filter(([route]) => route !== "compare" || !session.blind).map(([route, text, key]) =>
    h("a", { href: `#/${route}/${encodeURIComponent(current.name)}`, class: "tab", title: key && `${text} (${key})`,
      "aria-current": route === current.route ? "page" : null }, text)));
}

function help() {
  const dialog = h("dialog", { class: "help", "aria-label": "Help", onclose: () => dialog.remove() },
    h("h2", {}, "Keys"),
    h("dl", {}, KEYS.map(([keys, text]) => [h("dt", {}, keys), h("dd", {}, text)])),
    h("p", { class: "soft" }, undecidedCounts(session?.blind), " Unsure counts neither way. For research use only; not for diagnosis."),
    h("form", { method: "dialog" }, h("button", { class: "main" }, "Close")));
  document.body.append(dialog);
  dialog.showModal();
}

const EVERYWHERE = {
  gallery: () => current.name !== null && go("check", current.name),
  slide: () => current.name !== null && go("slide", current.name),
  worklist: () => go(""),
  help,
};

addEventListener("keydown", (event) => {
  const action = actionOf(event);
  if (!action) return;
  const handler = screen.keys?.[action] ?? EVERYWHERE[action];
  if (!handler) return;
  event.preventDefault();
  handler(event);
});
addEventListener("keyup", (event) => screen.keyup?.(event));
addEventListener("blur", () => screen.keyup?.({ key: " " }));
// A button that was clicked, not reached by Tab, gives the keys back to the screen.
addEventListener("click", (event) => {
  if (event.detail > 0) event.target.closest?.("button")?.blur();
});
addEventListener("hashchange", show);
addEventListener("unhandledrejection", (event) => banner(`Something went wrong: ${event.reason?.message ?? event.reason}. Reload the page.`));

document.getElementById("help").addEventListener("click", help);
// The token is in the cookie now; it need not stand in the address, nor in the history.
if (location.search) history.replaceState(null, "", `/${location.hash}`);
try {
  session = await get("/api/session");
  readAs(session.reader);
  document.getElementById("who").textContent = session.blind ? `${session.reader}, blind` : session.reader;
  await show();
} catch (error) {
  banner(`The server does not let this page in: ${error.message}.`);
}
