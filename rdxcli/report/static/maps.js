// Linked maps of the two representations, and what each image is near to in both.
(async () => {
  const data = held("map-data"), root = document.documentElement;
  if (!data) return;
  /** @param {string} packed @returns {Promise<Uint16Array>} */
  const numbers = async (packed) => new Uint16Array(await unpack(packed));
  /** @param {Record<string, any>} packed @returns {Promise<Record<string, any>>} */
  const each = async (packed, open = numbers) => Object.fromEntries(await Promise.all(Object.entries(packed).map(async ([key, value]) => [key, await open(value)])));

  const n = data.n, names = Object.keys(data.layouts);
  const [layouts, groups, labels, text] = await Promise.all([each(data.layouts, (sides) => each(sides)), each(data.groups), numbers(data.labels), unpack(data.ids)]);
  /** Where the rows are now: the layout, and (x, y) of each row by side. */
  let layout = address.values.get("map") ?? names.at(-1);
  if (!layouts[layout]) [layout] = names;
  let maps = layouts[layout];
  const ids = new TextDecoder().decode(text).split("\n");
  const base = new Float64Array(data.names.length);
  for (let i = 0; i < n; i += 1) base[labels[i]] += 1 / n;
  const named = (row) => (data.names[labels[row]] ? `${ids[row]}: ${data.names[labels[row]]}` : ids[row]);
  /** One mark a row; null when nothing is selected. @type {Uint8Array | null} */
  let chosen = null;
  let hovered = -1;

  // small pictures lie on sheets, which are decoded when one of them is shown
  const sprites = data.sprites ?? null;
  const places = new Map(sprites?.places ? [...await numbers(sprites.places)].map((row, place) => [row, place]) : []);
  const large = new Set(all("figure[data-row]:has(img)").map((figure) => Number(figure.dataset.row)));
  /** @param {number} row @returns {HTMLElement} */
  function small(row) {
    const node = make("span", { className: "sprite", title: named(row), role: "img", ariaLabel: named(row) });
    const place = places.get(row);
    if (place === undefined) return Object.assign(node, { textContent: large.has(row) ? "" : ids[row].slice(-8), className: "sprite empty" });
    const { edge, across, each: full, sheets } = sprites, on = place % full;
    node.style.backgroundImage = `url(${sheets[Math.floor(place / full)]})`;
    node.style.backgroundPosition = `-${(on % across) * edge}px -${Math.floor(on / across) * edge}px`;
    return node;
  }
  const near = new Map((data.shown ?? []).map((row, place) => [row, place]));
  /** The nearest images in both models side by side; those that are near in both are framed. @param {number} row */
  known = (row) => {
    if (!near.has(row)) return [];
    const lists = Object.entries(data.neighbours).map(([side, rows]) => [side, rows[near.get(row)]]);
    return lists.map(([side, rows]) => {
      const shared = (one) => lists.every(([, found]) => found.includes(one));
      return make("div", { className: "near" }, make("p", {}, "nearest in ", make("span", { className: `side ${side}` }, data.sides[side])),
        make("div", { className: "small" }, ...rows.map((one) => { const node = small(one); node.classList.toggle("both", shared(one)); return node; })));
    });
  };

  /** @param {string} hex @returns {number} a pixel of ImageData, opaque */
  const pixel = (hex) => {
    const value = parseInt(hex.slice(1), 16);
    return (0xff000000 | ((value & 255) << 16) | (value & 0xff00) | (value >> 16)) >>> 0;
  };
  const palette = await each(data.colours, (list) => Uint32Array.from(list, pixel));
  const PAD = 8;
  /** @param {number} size of a canvas in pixels @returns {number} pixels a step of the packed places */
  const scale = (size) => (size - 2 * PAD) / 65535;

  /** @param {HTMLCanvasElement} canvas */
  function draw(canvas) {
    const points = maps[canvas.dataset.map], group = groups[canvas.dataset.labels], colours = palette[canvas.dataset.labels];
    const context = canvas.getContext("2d");
    const image = context.createImageData(canvas.width, canvas.height);
    const pixels = new Uint32Array(image.data.buffer), width = canvas.width;
    const sx = scale(width), sy = scale(canvas.height);
    const faint = dark() ? 0xff463a32 : 0xffe9e3df;
    // first the rows of no group (or not selected), then the others over them
    for (let pass = 0; pass < 2; pass += 1) {
      for (let i = 0; i < n; i += 1) {
        const front = chosen ? chosen[i] : group[i] > 0;
        if (Boolean(front) !== (pass === 1)) continue;
        const x = (PAD + points[2 * i] * sx) | 0, y = (PAD + (65535 - points[2 * i + 1]) * sy) | 0;
        const colour = chosen && !front ? faint : colours[group[i]];
        const reach = n > 5000 || pass === 0 ? 1 : 2;
        for (let v = y - reach; v <= y + reach; v += 1) {
          for (let u = x - reach; u <= x + reach; u += 1) pixels[v * width + u] = colour;
        }
      }
    }
    context.putImageData(image, 0, 0);
    if (hovered >= 0) {
      context.beginPath();
      context.arc(PAD + points[2 * hovered] * sx, PAD + (65535 - points[2 * hovered + 1]) * sy, 8, 0, 2 * Math.PI);
      context.lineWidth = 2;
      context.strokeStyle = getComputedStyle(document.body).color;
      context.stroke();
    }
  }
  const canvases = all("canvas[data-map]");
  const redraw = () => canvases.forEach(draw);
  on(document, "theme", redraw);

  const panel = byId("selection");
  const part = (name) => byId(`selection-${name}`);
  const rows = () => [...(chosen?.keys() ?? [])].filter((i) => chosen[i]);

  /** @param {Uint8Array | null} marks @param {string} how for the address; empty while the selection changes */
  function select(marks, how = "") {
    const started = performance.now();
    chosen = marks;
    const picked = rows(), count = picked.length;
    if (!count) chosen = null;
    redraw();
    panel.hidden = !chosen;
    root.dataset.selected = String(count);
    if (chosen) {
      const found = new Map();
      for (const i of picked) found.set(labels[i], (found.get(labels[i]) ?? 0) + 1);
      const percent = (share) => `${Math.round(100 * share)} %`;
      part("count").textContent = `${count} of ${n} images`;
      part("labels").textContent = data.names.length < 2 ? "" : [...found].sort((p, q) => q[1] - p[1]).slice(0, 6)
        .map(([k, c]) => `${data.names[k]} ${percent(c / count)} (of all ${percent(base[k])})`).join(", ");
      part("ids").textContent = picked.slice(0, 30).map((i) => ids[i]).join(", ") + (count > 30 ? ` and ${count - 30} more` : "");
    }
    root.dataset.brushMs = (performance.now() - started).toFixed(1);
    if (how || !chosen) {
      address.set("sel", chosen ? how : "");
      const pictured = picked.filter((row) => places.has(row));
      part("pictures").replaceChildren(...pictured.slice(0, 200).map(small));
      if (chosen && pictured.length > 200) part("pictures").append(`200 of ${count} are pictured`);
    }
  }
  on(part("clear"), "click", () => select(null));
  on(part("copy"), "click", () => copy(rows().map((i) => ids[i]).join("\n"), part("copy")));
  on(part("csv"), "click", () => {
    const quote = (cell) => `"${String(cell).replace(/^([=+\-@])/, "'$1").replaceAll('"', '""')}"`;
    const lines = rows().map((i) => [ids[i], data.names[labels[i]], ...["a", "b"].map((side) => (groups[side][i] ? side + groups[side][i] : ""))].map(quote).join(","));
    part("csv").href = `data:text/csv;charset=utf-8,${encodeURIComponent(["id,label,concept_a,concept_b", ...lines].join("\n"))}`;
  });
  on(document, "keydown", (event) => { if (event.key === "Escape" && !zoom.open) select(null); });
  const group = (side, wanted) => Uint8Array.from(groups[side], (one) => Number(one === wanted));
  on(document, "click", (event) => {
    const { side, group: wanted } = event.target.closest?.("button.choose")?.dataset ?? {};
    if (side) select(group(side, Number(wanted)), `group:${side}:${wanted}`);
  });

  /** Whether (x, y) lies inside a closed outline. @param {number[][]} outline */
  function inside(outline, x, y) {
    let within = false;
    for (let i = 0, j = outline.length - 1; i < outline.length; j = i, i += 1) {
      const [xi, yi] = outline[i], [xj, yj] = outline[j];
      if ((yi > y) !== (yj > y) && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) within = !within;
    }
    return within;
  }
  /** The rows in the rectangle of two corners, or in an outline. @param {Uint16Array} points @param {number[][]} path */
  function marked(points, path, free) {
    const xs = path.map((p) => p[0]), ys = path.map((p) => p[1]);
    const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const marks = new Uint8Array(n);
    for (let i = 0; i < n; i += 1) {
      const x = points[2 * i], y = points[2 * i + 1];
      if (x >= x0 && x <= x1 && y >= y0 && y <= y1) marks[i] = !free || inside(path, x, y) ? 1 : 0;
    }
    return marks;
  }

  const tip = make("div", { className: "tooltip", hidden: true });
  document.body.append(tip);
  /** Mark a row in the maps and tell it beside the pointer; -1 for none. @param {number} row @param {PointerEvent} [event] */
  function hover(row, event) {
    if (row === hovered) return;
    hovered = row;
    redraw();
    tip.hidden = row < 0;
    if (tip.hidden) return;
    const { clientX: x, clientY: y } = event;
    tip.replaceChildren(...(places.has(row) ? [small(row)] : []), make("p", {}, named(row)), ...known(row));
    tip.style.left = `${Math.max(4, Math.min(x + 18, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${y + 12 + tip.offsetHeight > innerHeight ? Math.max(4, y - tip.offsetHeight - 12) : y + 12}px`;
  }
  for (const canvas of canvases) {
    const side = canvas.dataset.map;
    /** @param {PointerEvent} event @returns {number[]} in the units of the map */
    const where = (event) => {
      const [x, y] = shares(event, canvas);
      return [(x * canvas.width - PAD) / scale(canvas.width), 65535 - (y * canvas.height - PAD) / scale(canvas.height)];
    };
    let path = null, free = false;
    const corners = () => (free ? path : [path[0], path.at(-1)]);
    on(canvas, "pointerdown", (event) => { path = [where(event)]; hover(-1); canvas.setPointerCapture(event.pointerId); });
    on(canvas, "pointerup", () => {
      if (path && path.length < 2) select(null);
      else if (path) {
        const step = Math.ceil(corners().length / 60), kept = corners().filter((_, i) => i % step === 0 || !free);
        select(marked(maps[side], corners(), free), [free ? "outline" : "box", side, ...kept.flat().map(Math.round), ...(names.length > 1 ? [layout] : [])].join(":"));
      }
      path = null;
    });
    on(canvas, "pointermove", (event) => {
      const [x, y] = where(event);
      if (path) {
        path.push([x, y]);
        free = event.shiftKey;
        select(marked(maps[side], corners(), free), "");
        return;
      }
      const points = maps[side];
      let best = -1, nearest = (12 / scale(canvas.width)) ** 2;
      for (let i = 0; i < n; i += 1) {
        const distance = (points[2 * i] - x) ** 2 + (points[2 * i + 1] - y) ** 2;
        if (distance < nearest) { best = i; nearest = distance; }
      }
      hover(best, event);
    });
    on(canvas, "pointerleave", () => hover(-1));
  }
  on(document, "pointerover", (event) => {
    const figure = event.target.closest?.("figure[data-row]");
    const row = figure && event.pointerType === "mouse" ? Number(figure.dataset.row) : -1;
    if (near.has(row) || !event.target.closest?.("canvas")) hover(near.has(row) ? row : -1, event);
  });

  /** Put the rows where a layout has them. @param {string} name */
  function place(name) {
    layout = name;
    maps = layouts[name];
    for (const button of switches) button.setAttribute("aria-pressed", String(button.dataset.layout === name));
    for (const said of all(".layout")) said.textContent = name;
    redraw();
  }
  const switches = all("[data-layout]");
  for (const button of switches) on(button, "click", () => { place(button.dataset.layout); address.set("map", layout); });
  place(layout);

  const asked = address.values.get("sel") ?? "", [how, side, ...rest] = asked.split(":");
  // an outline belongs to the layout that it was drawn in
  const drawn = layouts[rest.at(-1)] ?? maps, flat = rest.map(Number).filter((value) => !Number.isNaN(value));
  const path = flat.flatMap((value, i) => (i % 2 ? [[flat[i - 1], value]] : []));
  if (how === "group" && groups[side]) select(group(side, flat[0]), asked);
  else if (maps[side] && path.length > 1) select(marked(drawn[side], path, how === "outline"), asked);
  root.dataset.mapsDrawn = String(canvases.length);
  root.dataset.openMs = performance.now().toFixed(0); // since the page was asked for
  root.dataset.rows = String(n);
})();
