// Talks to the server. Every failure is one line of text.

export class ServerError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// Whose page this is. The cookie is the whole browser's: another reader's address that is opened in
// it makes it theirs, and the server refuses what this page would then store under their name.
let reader = null;

export function readAs(name) {
  reader = name;
}

async function ask(address, options) {
  if (reader !== null) options.headers["Segmitos-Reader"] = encodeURIComponent(reader);
  let response;
  try {
    response = await fetch(address, options);
  } catch {
    throw new ServerError(0, "the server does not answer");
  }
  const content = await response.json().catch(() => ({}));
  if (!response.ok) throw new ServerError(response.status, content.error ?? `error ${response.status}`);
  return content;
}

export const get = (address) => ask(address, { headers: { Accept: "application/json" } });

export const post = (address, content) =>
  ask(address, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(content) });

export function slideAddress(name, what = "", consensus = false) {
  return `/api/slides/${encodeURIComponent(name)}${what}${consensus ? (what.includes("?") ? "&" : "?") + "as=consensus" : ""}`;
}

export function cropAddress(name, mark, um, at = "", consensus = false) {
  // A moved mark has another picture under the same address, so its place is part of it.
  return `/crops/${encodeURIComponent(name)}/${encodeURIComponent(mark)}.jpg?um=${um}${at ? `&at=${at}` : ""}${consensus ? "&as=consensus" : ""}`;
}

export function tileAddress(name, level, column, row) {
  return `/tiles/${encodeURIComponent(name)}/${level}/${column}_${row}.jpg`;
}

// `crypto.randomUUID` is there on https and localhost only.
export function uuid() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 15) | 64;
  bytes[8] = (bytes[8] & 63) | 128;
  const text = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return text.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
