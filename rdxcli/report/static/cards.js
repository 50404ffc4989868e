// A table of all things beside the card of the chosen one; pictures that are decoded when they are shown, and zoom.

/** Give the pictures of a card their content. @param {ParentNode} within */
function develop(within) {
  for (const picture of within.querySelectorAll("img[data-picture]")) {
    picture.src = sheet[picture.dataset.picture];
    delete picture.dataset.picture;
  }
}

class Explorer {
  /** @param {HTMLElement} holder */
  constructor(holder) {
    this.holder = holder;
    this.place = holder.querySelector(".chosen");
    this.count = holder.querySelector(".count");
    this.grid = grids.find((grid) => holder.contains(grid.table));
    this.grid.choose = (anchor) => this.show(anchor);
    this.grid.changed = () => this.said();
    this.cards = null;
    develop(this.place);
    this.current = this.place.firstElementChild.id;
    holder.querySelector(".list").addEventListener("keydown", (event) => this.key(event));
    this.ready = this.load();
  }

  async load() {
    await this.grid.ready;
    // Jinja has escaped what came from outside
    this.cards = await unpackJson(this.holder.dataset.cards);
    this.order = new Map(this.grid.rows.map((row, place) => [row.anchor, place]));
    this.grid.mark(this.current);
    this.said();
  }

  said() {
    const [shown, all] = [this.grid.shown.length, this.grid.rows.length];
    this.count.textContent = shown === all ? `all ${all}` : `${shown} of ${all}`;
  }

  /** @param {string} anchor @returns {boolean} */
  show(anchor, remember = true) {
    if (!this.order?.has(anchor)) return false;
    const holder = make("template", { innerHTML: this.cards[this.order.get(anchor)] });
    develop(holder.content);
    this.place.replaceChildren(holder.content.firstElementChild);
    this.current = anchor;
    this.grid.mark(anchor);
    if (remember) { address.anchor = anchor; address.write(); }
    return true;
  }

  /** Arrows go through the table in its order. @param {KeyboardEvent} event */
  key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const rows = this.grid.shown, at = rows.findIndex((row) => row.anchor === this.current);
    const next = rows[Math.min(rows.length - 1, Math.max(0, at + step))];
    if (next) { this.show(next.anchor); next.node?.querySelector("a")?.focus({ preventScroll: true }); }
  }
}

/** @type {Explorer[]} */
const explorers = [...document.querySelectorAll(".explorer")].map((holder) => new Explorer(holder));

/** What else is known of a sample: set by the maps. @type {(row: number) => Node[]} */
let known = () => [];

const zoom = byId("zoom");
document.addEventListener("click", (event) => {
  const figure = event.target.closest?.("button.shown")?.closest("figure");
  if (!figure || !zoom) return;
  const large = figure.querySelector("button.shown").cloneNode(true);
  const picture = make("div", { className: "shown large" }, ...large.children);
  const row = figure.dataset.row === undefined ? -1 : Number(figure.dataset.row);
  byId("zoom-content").replaceChildren(picture, make("p", { textContent: figure.querySelector("figcaption").title }), ...known(row));
  zoom.showModal();
});
zoom?.addEventListener("click", (event) => { if (event.target === zoom) zoom.close(); });
