"use strict";
// What the page holds, and its state, which lives in the address: `#a2&q=horse&sort.units=-3`.

/** @param {string} id @returns {HTMLElement | null} */
const byId = (id) => document.getElementById(id);

/** @param {string} selector @returns {any[]} */
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

/** @param {EventTarget} target @param {string} kind @param {(event: any) => void} then */
const on = (target, kind, then) => target.addEventListener(kind, then);

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
const held = (id) => JSON.parse(byId(id)?.textContent ?? "null");

/** The step of an arrow key in columns and rows. @param {KeyboardEvent} event @returns {number[] | null} */
function arrow(event, sideways = true) {
  const step = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }[event.key];
  if (!step || (step[0] && !sideways)) return null;
  event.preventDefault();
  return step;
}

/** @param {number} value @param {number} most @returns {number} from 0 to the most */
const within = (value, most) => Math.max(0, Math.min(most, value));

/** Where in a node an event is. @returns {number[]} shares of its width and height */
function shares(event, node) {
  const box = node.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

/** Lay a node over a part of what it is in. @param {...number} part left, top, width, height: shares */
const lay = (node, ...part) => ["left", "top", "width", "height"].forEach((side, i) => { node.style[side] = `${100 * part[i]}%`; });

/** Pictures that several cards share, each once. @type {string[]} */
const sheet = held("pictures") ?? [];

const address = {
  anchor: "",
  values: new URLSearchParams(),
  read() {
    this.values = new URLSearchParams(`to=${location.hash.slice(1)}`);
    this.anchor = this.values.get("to");
    this.values.delete("to");
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

/** Copy text, and say so on the button; without the clipboard of the browser through a selection. @param {string} text */
async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea", { value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  const name = button.textContent;
  button.textContent = "copied";
  setTimeout(() => { button.textContent = name; }, 1500);
}
