// Tables that are sorted by their heads and searched; long ones draw the rows in view.
const ROW = 32, WHOLE = 200;

class Grid {
  /** @param {HTMLTableElement} table */
  constructor(table) {
    this.table = table;
    this.body = table.tBodies[0];
    this.key = table.dataset.key ?? "";
    this.frame = table.parentElement;
    /** Called with the anchor of the row that is chosen. @type {((anchor: string) => void) | null} */
    this.choose = null;
    this.query = "";
    this.chosen = "";
    this.whole = false;
    const given = address.values.get(`sort.${this.key}`);
    this.sorted = given ? { column: Math.abs(Number(given)), down: given.startsWith("-") } : null;
    this.heads = [...table.tHead.rows[0].cells];
    this.heads.forEach((head, place) => {
      const button = make("button", { type: "button", textContent: head.textContent });
      head.replaceChildren(button);
      on(button, "click", () => this.sort(place));
    });
    on(this.frame, "scroll", () => this.virtual && this.draw());
    this.ready = this.load();
  }

  async load() {
    if (this.table.dataset.packed) {
      const { rows, anchors } = await unpackJson(this.table.dataset.packed);
      this.rows = rows.map((cells, place) => ({ cells, anchor: anchors[place] ?? "", node: null }));
      this.table.setAttribute("aria-rowcount", String(rows.length + 1));
    } else {
      this.rows = [...this.body.rows].map((node) => ({
        node, anchor: "", cells: [...node.cells].map((cell) => ("v" in cell.dataset ? [cell.textContent, Number(cell.dataset.v)] : cell.textContent)),
      }));
    }
    this.virtual = Boolean(this.table.dataset.packed);
    this.frame.classList.toggle("scrolled", this.virtual);
    if (this.virtual) Object.assign(this.frame, { tabIndex: 0, role: "region", ariaLabel: this.table.ariaLabel ?? this.key });
    this.arrange();
  }

  /** @param {number} column */
  sort(column) {
    const again = this.sorted?.column === column;
    const number = this.rows.some((row) => Array.isArray(row.cells[column]));
    // numbers begin with the largest, words with A; a second click turns it, a third gives the first order
    const down = again ? !this.sorted.down : number;
    this.sorted = again && down === number ? null : { column, down };
    address.set(`sort.${this.key}`, this.sorted ? `${down ? "-" : ""}${column}` : "");
    this.arrange();
  }

  /** @param {string} query */
  search(query) {
    this.query = query;
    this.arrange();
    return this.shown.length;
  }

  arrange() {
    const text = (cell) => (Array.isArray(cell) ? cell[0] : cell);
    const found = this.query ? this.rows.filter((row) => row.cells.map(text).join(" ").toLowerCase().includes(this.query)) : [...this.rows];
    if (this.sorted) {
      const { column, down } = this.sorted, sign = down ? -1 : 1;
      const missing = (cell) => text(cell) === "-";
      found.sort((p, q) => {
        const [a, b] = [p.cells[column], q.cells[column]];
        if (missing(a) || missing(b)) return missing(a) - missing(b);
        return sign * (Array.isArray(a) && Array.isArray(b) ? a[1] - b[1] : text(a).localeCompare(text(b), undefined, { numeric: true }));
      });
    }
    this.heads.forEach((head, place) => {
      if (this.sorted?.column === place) head.setAttribute("aria-sort", this.sorted.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    this.shown = found;
    this.frame.scrollTop = 0;
    this.draw();
    this.changed?.();
  }

  row(entry) {
    if (!entry.node) {
      entry.node = make("tr", { style: { height: `${ROW}px` } }, ...entry.cells.map((cell, place) => {
        const [said, number] = Array.isArray(cell) ? cell : [cell, null];
        const node = make("td", { className: number === null ? "" : "value", title: said.length > 24 ? said : "" });
        // of long paths the end tells them apart
        const name = said.length > 34 && /[/\\]/.test(said) ? `\u2026${said.slice(-33)}` : said;
        node.append(place === 0 && entry.anchor ? make("a", { href: `#${encodeURIComponent(entry.anchor)}`, textContent: name }) : said);
        return node;
      }));
      if (this.choose) on(entry.node, "click", (event) => { event.preventDefault(); this.choose(entry.anchor); });
    }
    entry.node.classList.toggle("current", Boolean(entry.anchor) && entry.anchor === this.chosen);
    return entry.node;
  }

  draw() {
    const rows = this.shown, few = !this.virtual || this.whole || rows.length <= WHOLE;
    const first = few ? 0 : Math.max(0, Math.floor(this.frame.scrollTop / ROW) - 10);
    const last = few ? rows.length : Math.min(rows.length, first + Math.ceil(this.frame.clientHeight / ROW) + 30);
    const gap = (count) => (count > 0 ? [make("tr", { ariaHidden: "true", style: { height: `${count * ROW}px` } })] : []);
    this.body.replaceChildren(...gap(first), ...rows.slice(first, last).map((entry) => this.row(entry)), ...gap(rows.length - last));
  }

  /** @returns {number} where the chosen row is */
  place() {
    return this.shown.findIndex((row) => row.anchor === this.chosen);
  }

  /** The row of an anchor is marked and brought into view. @param {string} anchor */
  mark(anchor) {
    this.chosen = anchor;
    const place = this.place();
    const [top, height] = [place * ROW, this.frame.clientHeight - 2 * ROW];
    if (place >= 0 && (top < this.frame.scrollTop || top > this.frame.scrollTop + height)) this.frame.scrollTop = top - height / 2;
    this.draw();
  }
}

/** @type {Grid[]} */
const grids = all("table.grid").map((table) => new Grid(table));
