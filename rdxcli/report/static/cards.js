// A table of all things beside the card of the chosen one; pictures that are decoded when they are shown, and zoom.

/** Give the pictures of a card their content. @param {ParentNode} card */
function develop(card) {
  for (const picture of all("img[data-picture]", card)) {
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
    this.grid.chosen = this.place.firstElementChild.id;
    on(holder.querySelector(".list"), "keydown", (event) => this.key(event));
    this.ready = this.load();
  }

  async load() {
    await this.grid.ready;
    // Jinja has escaped what came from outside
    this.cards = await unpackJson(this.holder.dataset.cards);
    this.order = new Map(this.grid.rows.map((row, place) => [row.anchor, place]));
    this.grid.mark(this.grid.chosen);
    this.said();
  }

  said() {
    const [shown, whole] = [this.grid.shown.length, this.grid.rows.length];
    this.count.textContent = shown === whole ? `all ${whole}` : `${shown} of ${whole}`;
  }

  /** @param {string} anchor @returns {boolean} */
  show(anchor, remember = true) {
    if (!this.order?.has(anchor)) return false;
    const holder = make("template", { innerHTML: this.cards[this.order.get(anchor)] });
    develop(holder.content);
    this.place.replaceChildren(holder.content.firstElementChild);
    this.grid.mark(anchor);
    if (remember) { address.anchor = anchor; address.write(); }
    return true;
  }

  /** Arrows go through the table in its order. @param {KeyboardEvent} event */
  key(event) {
    const step = arrow(event, false), rows = this.grid.shown;
    if (!step) return;
    const next = rows[within(this.grid.place() + step[1], rows.length - 1)];
    if (next) { this.show(next.anchor); next.node?.querySelector("a")?.focus({ preventScroll: true }); }
  }
}

/** @type {Explorer[]} */
const explorers = all(".explorer").map((holder) => new Explorer(holder));

/** What else is known of a sample: set by the maps. @type {(row: number) => Node[]} */
let known = () => [];

const zoom = byId("zoom");
on(document, "click", (event) => {
  if (event.target === zoom) zoom.close();
  const figure = event.target.closest?.("button.shown")?.closest("figure");
  if (!figure || !zoom) return;
  const large = figure.querySelector("button.shown").cloneNode(true);
  const picture = make("div", { className: "shown large" }, ...large.children);
  byId("zoom-content").replaceChildren(picture, make("p", {}, figure.querySelector("figcaption").title), ...known(Number(figure.dataset.row ?? -1)));
  zoom.showModal();
});
