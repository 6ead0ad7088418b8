// Elements are made by hand and text is always text: nothing from a server is ever parsed as HTML.

export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "class") element.className = value;
    else if (name in element && name !== "list") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// Replaces what an element holds; what is not there is left out, as `h` does.
export function fill(element, ...children) {
  element.replaceChildren(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function button(text, onclick, more = {}) {
  return h("button", { type: "button", onclick, ...more }, text);
}

let toastTimer = 0;
export function toast(text) {
  const place = document.getElementById("toast");
  place.textContent = text;
  place.classList.add("shown");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => place.classList.remove("shown"), 4000);
}

export function banner(text) {
  const place = document.getElementById("banner");
  place.textContent = text ?? "";
  place.hidden = !text;
}

export function head(text) {
  const place = document.getElementById("head");
  if (place.textContent !== (text ?? "")) place.textContent = text ?? "";
  place.hidden = !text;
}

// Asks for text in a dialog; null where it was cancelled.
export function ask(title, value = "") {
  return new Promise((resolve) => {
    const field = h("textarea", { value, rows: 4, maxLength: 4000, "aria-label": title });
    const dialog = h("dialog", { "aria-label": title, onclose: () => { dialog.remove(); resolve(dialog.returnValue === "ok" ? field.value : null); } },
      h("form", { method: "dialog" }, h("h2", {}, title), field,
        h("p", { class: "row" }, h("button", { value: "ok", class: "main" }, "Save"), h("button", { value: "cancel", formNoValidate: true }, "Cancel"))));
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) dialog.close("ok");
    });
    document.body.append(dialog);
    dialog.showModal();
    field.focus();
    field.select();
  });
}

// What an undecided mark counts as; a blind reader's count is of what was decided alone.
export function undecidedCounts(blind) {
  return blind ? "An undecided mark counts as none." : "An undecided detection counts as the model has it.";
}

export const STATES = {
  mitosis: { text: "Mitosis", key: "1", sign: "●" },
  "look-alike": { text: "Look-alike", key: "2", sign: "■" },
  atypical: { text: "Atypical", key: "3", sign: "◆" },
  unsure: { text: "Unsure", key: "0", sign: "▲" },
};
export const LABELS = Object.keys(STATES);

export function symbol(label) {
  return h("span", { class: "symbol", data: { label: label ?? "none" }, "aria-hidden": "true" }, label ? STATES[label].sign : "○");
}
