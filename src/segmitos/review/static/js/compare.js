import { h } from "./dom.js";
export async function showCompare({ view }) { view.replaceChildren(h("p", {}, "soon")); return {}; }
