// Keys, one table for help and handling. Never inside a text field.

export const KEYS = [
  ["1 or A", "mitosis"], ["2 or R", "look-alike"], ["3", "atypical mitosis (counts)"], ["0 or U", "unsure"],
  ["C", "comment"], ["Z, Shift+Z", "undo, redo"], ["arrows, J K", "next, previous mark"], ["N", "next undecided"],
  ["Shift + arrows", "select several (gallery)"], ["G, S, W", "gallery, slide, worklist"], ["H", "hotspot"],
  ["P", "add a mark: then click; or double click"], ["Delete", "delete a mark of your own"], ["Space (held)", "hide marks"],
  ["+ −", "zoom"], ["5 6 7 8", "5, 10, 20, 40x"], ["T, Shift+T", "next, previous screening field"], ["Enter", "field seen"],
  ["[ ]", "smaller, larger crops (gallery)"], ["O", "ring on or off (gallery)"], ["?", "this help"],
];

const NAMES = {
  1: "mitosis", a: "mitosis", 2: "look-alike", r: "look-alike", 3: "atypical", 0: "unsure", u: "unsure",
  c: "comment", z: "undo", Z: "redo", ArrowRight: "next", ArrowDown: "down", ArrowLeft: "previous", ArrowUp: "up",
  j: "next", k: "previous", n: "undecided", g: "gallery", s: "slide", w: "worklist", h: "hotspot", p: "add",
  Delete: "delete", Backspace: "delete", " ": "hide", "+": "in", "=": "in", "-": "out", 5: "5x", 6: "10x", 7: "20x", 8: "40x",
  t: "field", T: "field-back", Enter: "seen", "?": "help", "[": "smaller", "]": "larger", o: "ring", Escape: "escape",
};

export function actionOf(event) {
  // Many keyboards type brackets with AltGr, which counts as Ctrl and Alt, or with Option.
  const isBracket = event.altKey && "[]".includes(event.key);
  if (((event.ctrlKey || event.altKey) && !isBracket) || event.metaKey || event.isComposing) return null;
  const target = event.target;
  if (target.closest?.("textarea, select, dialog, input:not([type=range]):not([type=checkbox]):not([type=radio])")) return null;
  const onControl = target.closest?.("button, a, summary, input");
  if (onControl && (event.key === "Enter" || event.key === " ")) return null;
  if (target.closest?.("input[type=range], input[type=radio]") && event.key.startsWith("Arrow")) return null;
  // With Caps Lock on, a letter is a capital without Shift: Shift tells undo from redo, not the case.
  const letter = event.key.toLowerCase();
  if (event.shiftKey && (letter === "z" || letter === "t")) return NAMES[letter.toUpperCase()];
  return NAMES[letter.length === 1 ? letter : event.key] ?? null;
}
