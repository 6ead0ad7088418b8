// What remains, what was looked at, a note and a name: then the count is signed.

import { get, post, slideAddress, uuid } from "./api.js";
import { banner, button, fill, h, head, toast, undecidedCounts } from "./dom.js";
import { SlideReview } from "./review.js";

const EXPORTS = [["html", "Report"], ["geojson", "Marks for QuPath"], ["csv", "Table of marks"], ["json", "Counts"]];
// The others hold marks of the model.
const BLIND_EXPORTS = ["csv", "json"];

export async function showFinish({ view, session, go, name, query }) {
  const consensus = query.get("as") === "consensus";
  const review = await new SlideReview(name, session.reader, consensus).load({ marks: false });
  await review.flush();
  const note = h("textarea", { value: review.state.comments[""] ?? "", maxLength: 4000, disabled: review.finished });
  const signature = h("input", { type: "text", autocomplete: "off", maxLength: 60, required: true });
  const place = h("div");

  async function send(what, event) {
    // Writing the report takes a while.
    for (const one of place.querySelectorAll("form button")) Object.assign(one, { disabled: true, textContent: "One moment …" });
    try {
      const answer = await post(slideAddress(name, what, consensus), { model: review.about.model, events: [{ id: uuid(), at: new Date().toISOString(), ...event }] });
      review.take(answer);
      banner(null);
      draw();
    } catch (error) {
      toast(`Not done: ${error.message}`);
      const about = await get(slideAddress(name, "", consensus));
      review.take(about);
      draw();
    }
  }

  function sign(event) {
    event.preventDefault();
    if (signature.value.trim().toLowerCase() !== session.reader.toLowerCase()) {
      signature.setCustomValidity(`Type your name as the server knows it: ${session.reader}`);
      signature.reportValidity();
      signature.setCustomValidity("");
      return;
    }
    send("/finish", { kind: "finish", text: note.value.trim() });
  }

  function draw() {
    const { summary, state } = review;
    head(summary.headline);
    const open = summary.undecided + summary.unsure;
    note.disabled = review.finished;
    fill(place,
      h("h1", {}, review.about.title),
      review.finished && h("p", { class: "notice" }, `Signed by ${review.who}, ${new Date(state.finished_at).toLocaleString()}.`),
      h("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": "Counts" }, h("table", {},
        h("thead", {}, h("tr", {}, ["Window", "Count", "Range", "Score", "Open"].map((text) => h("th", { scope: "col" }, text)))),
        h("tbody", {}, summary.windows.map((window) => h("tr", {},
          h("th", { scope: "row" }, window.where),
          window.score
            ? [h("td", {}, String(window.score.count)), h("td", {}, window.low === window.high ? "settled" : `${window.low} to ${window.high}`),
              h("td", {}, `${window.score.system}: ${window.score.score}${window.settled ? "" : ` (${window.scores.join(" or ")})`}`), h("td", {}, String(window.open))]
            : h("td", { colSpan: 4 }, window.reason))),
          h("tr", {}, h("th", { scope: "row" }, "all of the image"), h("td", {}, String(summary.count)),
            h("td", {}, summary.low === summary.high ? "settled" : `${summary.low} to ${summary.high}`), h("td"), h("td", {}, String(open)))))),
      h("p", {}, `${summary.decided} marks decided, ${summary.undecided} undecided, ${summary.unsure} unsure. `,
        `${Object.keys(state.regions).length} reviewed regions (${summary.reviewed_mm2.toFixed(2)} mm²), ${Object.keys(state.fields).length} fields screened.`),
      open > 0 && !review.finished && h("p", { class: "problem" }, summary.windows.some((window) => window.score && !window.settled)
        ? "What is open can still change a score."
        : summary.windows.some((window) => window.score) ? "What is open cannot change a score any more." : "What is open can still change the count.", " ", button("Decide on the rest", () => go("check", name))),
      h("form", { onsubmit: sign },
        h("label", {}, "Note", note),
        !review.finished && h("label", {}, `Your name, as a signature (${session.reader})`, signature),
        h("p", { class: "row" }, review.finished
          ? button("Take the signature back", () => send("/reopen", { kind: "undo", mark: state.finished }))
          : h("button", { type: "submit", class: "main" }, "Sign the count"))),
      h("h2", {}, review.finished ? "Signed files" : "Files as things stand"),
      h("p", { class: "row" }, EXPORTS.filter(([kind]) => !session.blind || BLIND_EXPORTS.includes(kind)).map(([kind, text]) => h("a", { class: "button", href: slideAddress(name, `/export.${kind}`, consensus), download: `reviewed.${kind}` }, text))),
      h("p", { class: "soft" }, "A signed review is also in the folder reviews of the results. ", undecidedCounts(session.blind), " Unsure counts neither way. For research use only; not for diagnosis."));
  }

  fill(view, h("div", { class: "finish" }, place));
  draw();
  return {};
}
