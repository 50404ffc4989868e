"use strict";
// What the page holds, and its state, which lives in the address: `#a2&q=horse&sort.units=-3`.

/** @param {string} id @returns {HTMLElement | null} */
const byId = (id) => document.getElementById(id);

/** @param {string} tag @param {object} fields @param {(Node | string)[]} inside @returns {HTMLElement} */
function make(tag, fields = {}, ...inside) {
  const { style, dataset, ...rest } = fields;
  const node = Object.assign(document.createElement(tag), rest);
  Object.assign(node.style, style);
  Object.assign(node.dataset, dataset);
  node.append(...inside);
  return node;
}

/** @param {string} packed gzip in base64 @returns {Promise<ArrayBuffer>} */
function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

/** @param {string} packed @returns {Promise<any>} */
const unpackJson = async (packed) => JSON.parse(new TextDecoder().decode(await unpack(packed)));

/** @returns {any} what a script element of data holds */
const held = (id, other) => JSON.parse(byId(id)?.textContent ?? "null") ?? other;

/** Pictures that several cards share, each once. @type {string[]} */
const sheet = held("pictures", []);

const address = {
  anchor: "",
  values: new URLSearchParams(),
  read() {
    const [anchor, ...rest] = location.hash.slice(1).split("&");
    try { this.anchor = decodeURIComponent(anchor); } catch { this.anchor = anchor; }
    this.values = new URLSearchParams(rest.join("&"));
  },
  /** @param {string} name @param {string} value empty for none */
  set(name, value) {
    if (value) this.values.set(name, value);
    else this.values.delete(name);
    this.write();
  },
  write() {
    const rest = String(this.values);
    history.replaceState(null, "", this.anchor || rest ? `#${encodeURIComponent(this.anchor)}${rest ? `&${rest}` : ""}` : location.pathname);
  },
};
address.read();

/** Copy text; without the clipboard of the browser through a selection. @param {string} text */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea", { value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}
