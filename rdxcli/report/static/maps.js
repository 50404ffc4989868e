"use strict";
// Linked maps of the two representations. The data stand in the page; nothing is fetched.
window.addEventListener("load", () => {
  // For tests and for people who save the page: how many pictures were decoded.
  const pictures = [...document.images].filter((p) => p.loading !== "lazy");
  document.documentElement.dataset.images = `${pictures.filter((p) => p.complete && p.naturalWidth > 0).length}/${pictures.length}`;
});
(async () => {
  const holder = document.getElementById("map-data");
  if (!holder) return;
  const data = JSON.parse(holder.textContent);
  const root = document.documentElement;

  /** @param {string} packed gzip in base64 @returns {Promise<ArrayBuffer>} */
  const unpack = (packed) => {
    const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  };
  /** @param {string} packed @returns {Promise<Uint16Array>} */
  const numbers = async (packed) => new Uint16Array(await unpack(packed));
  /** @param {Record<string, string>} packed @returns {Promise<Record<string, Uint16Array>>} */
  const each = async (packed) => Object.fromEntries(await Promise.all(Object.entries(packed).map(async ([k, v]) => [k, await numbers(v)])));

  const n = data.n;
  const [maps, groups, labels, text] = await Promise.all([each(data.maps), each(data.groups), numbers(data.labels), unpack(data.ids)]);
  const ids = new TextDecoder().decode(text).split("\n");
  const base = new Float64Array(data.names.length);
  for (let i = 0; i < n; i += 1) base[labels[i]] += 1 / n;
  /** One mark a row; null when nothing is selected. @type {Uint8Array | null} */
  let chosen = null;
  let hovered = -1;

  /** @param {string} hex @returns {number} a pixel of ImageData, opaque */
  const pixel = (hex) => {
    const value = parseInt(hex.slice(1), 16);
    return (0xff000000 | ((value & 255) << 16) | (value & 0xff00) | (value >> 16)) >>> 0;
  };
  const palette = Object.fromEntries(Object.entries(data.colours).map(([key, list]) => [key, Uint32Array.from(list, pixel)]));
  const PAD = 8;
  const across = (canvas) => (canvas.width - 2 * PAD) / 65535;
  const up = (canvas) => (canvas.height - 2 * PAD) / 65535;

  /** @param {HTMLCanvasElement} canvas */
  function draw(canvas) {
    const points = maps[canvas.dataset.map], group = groups[canvas.dataset.labels], colours = palette[canvas.dataset.labels];
    const context = canvas.getContext("2d");
    const image = context.createImageData(canvas.width, canvas.height);
    const pixels = new Uint32Array(image.data.buffer), width = canvas.width;
    const sx = across(canvas), sy = up(canvas);
    const faint = matchMedia("(prefers-color-scheme: dark)").matches ? 0xff463a32 : 0xffe9e3df;
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
  const canvases = [...document.querySelectorAll("canvas[data-map]")];
  const redraw = () => canvases.forEach(draw);

  const panel = document.getElementById("selection");
  const part = (name) => document.getElementById(`selection-${name}`);
  const rows = () => [...chosen.keys()].filter((i) => chosen[i]);

  /** @param {Uint8Array | null} marks */
  function select(marks) {
    const started = performance.now();
    const count = marks ? marks.reduce((sum, mark) => sum + mark, 0) : 0;
    chosen = count ? marks : null;
    redraw();
    panel.hidden = !chosen;
    root.dataset.selected = String(count);
    if (chosen) {
      const found = new Map();
      for (let i = 0; i < n; i += 1) if (chosen[i]) found.set(labels[i], (found.get(labels[i]) ?? 0) + 1);
      const percent = (share) => `${Math.round(100 * share)} %`;
      part("count").textContent = `${count} of ${n} images`;
      part("labels").textContent = data.names.length < 2 ? "" : [...found].sort((p, q) => q[1] - p[1]).slice(0, 6)
        .map(([k, c]) => `${data.names[k]} ${percent(c / count)} (of all ${percent(base[k])})`).join(", ");
      const first = [];
      for (let i = 0; i < n && first.length < 30; i += 1) if (chosen[i]) first.push(ids[i]);
      part("ids").textContent = first.join(", ") + (count > 30 ? ` and ${count - 30} more` : "");
    }
    root.dataset.brushMs = (performance.now() - started).toFixed(1);
  }
  part("clear").addEventListener("click", () => select(null));
  part("copy").addEventListener("click", () => navigator.clipboard?.writeText(rows().map((i) => ids[i]).join("\n")));
  part("csv").addEventListener("click", () => {
    const quote = (cell) => `"${String(cell).replace(/^([=+\-@])/, "'$1").replaceAll('"', '""')}"`;
    const lines = rows().map((i) => [ids[i], data.names[labels[i]], groups.a[i], groups.b[i]].map(quote).join(","));
    part("csv").href = `data:text/csv;charset=utf-8,${encodeURIComponent(["id,label,concept_a,concept_b", ...lines].join("\n"))}`;
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") select(null); });
  for (const button of document.querySelectorAll("button.choose")) {
    button.addEventListener("click", () => {
      const own = groups[button.dataset.side], wanted = Number(button.dataset.group);
      select(Uint8Array.from(own, (group) => Number(group === wanted)));
    });
  }

  /** Whether (x, y) lies inside a closed outline. @param {number[][]} outline */
  function inside(outline, x, y) {
    let within = false;
    for (let i = 0, j = outline.length - 1; i < outline.length; j = i, i += 1) {
      const [xi, yi] = outline[i], [xj, yj] = outline[j];
      if ((yi > y) !== (yj > y) && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) within = !within;
    }
    return within;
  }

  for (const canvas of canvases) {
    const points = maps[canvas.dataset.map];
    const tip = document.createElement("div");
    tip.className = "tooltip";
    tip.hidden = true;
    canvas.parentElement.append(tip);
    /** @param {PointerEvent} event @returns {number[]} in the units of the map */
    const where = (event) => {
      const box = canvas.getBoundingClientRect(), scale = canvas.width / box.width;
      return [((event.clientX - box.left) * scale - PAD) / across(canvas), 65535 - ((event.clientY - box.top) * scale - PAD) / up(canvas)];
    };
    let path = null;
    const marked = (free) => {
      const xs = path.map((p) => p[0]), ys = path.map((p) => p[1]), end = path[path.length - 1];
      const [x0, x1] = free ? [Math.min(...xs), Math.max(...xs)] : [Math.min(xs[0], end[0]), Math.max(xs[0], end[0])];
      const [y0, y1] = free ? [Math.min(...ys), Math.max(...ys)] : [Math.min(ys[0], end[1]), Math.max(ys[0], end[1])];
      const marks = new Uint8Array(n);
      for (let i = 0; i < n; i += 1) {
        const x = points[2 * i], y = points[2 * i + 1];
        if (x >= x0 && x <= x1 && y >= y0 && y <= y1) marks[i] = !free || inside(path, x, y) ? 1 : 0;
      }
      return marks;
    };
    canvas.addEventListener("pointerdown", (event) => { path = [where(event)]; hovered = -1; tip.hidden = true; canvas.setPointerCapture(event.pointerId); });
    canvas.addEventListener("pointerup", () => { if (path && path.length < 2) select(null); path = null; });
    canvas.addEventListener("pointermove", (event) => {
      const [x, y] = where(event);
      if (path) {
        path.push([x, y]);
        select(marked(event.shiftKey));
        return;
      }
      let best = -1, nearest = (12 / across(canvas)) ** 2;
      for (let i = 0; i < n; i += 1) {
        const distance = (points[2 * i] - x) ** 2 + (points[2 * i + 1] - y) ** 2;
        if (distance < nearest) { best = i; nearest = distance; }
      }
      if (best === hovered) return;
      hovered = best;
      redraw();
      tip.hidden = best < 0;
      if (best >= 0) {
        const box = canvas.getBoundingClientRect();
        tip.textContent = data.names[labels[best]] ? `${ids[best]}: ${data.names[labels[best]]}` : ids[best];
        tip.style.left = `${Math.min(event.clientX - box.left + 22, box.width - 120)}px`;
        tip.style.top = `${event.clientY - box.top + 4}px`;
      }
    });
    canvas.addEventListener("pointerleave", () => { tip.hidden = true; if (hovered >= 0) { hovered = -1; redraw(); } });
  }
  redraw();
  root.dataset.mapsDrawn = String(canvases.length);
  root.dataset.rows = String(n);
})();
