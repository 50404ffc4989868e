// Heat maps of layers or models: a chosen cell is marked in every map, and its numbers are told below.
(() => {
  const data = held("cells", null), panel = byId("cell");
  if (!data) return;
  const plots = [...document.querySelectorAll(".heatmap .plot")];
  const rows = data.rows.length, columns = data.columns.length;
  let at = null;
  const say = (value) => (value === null || value === undefined ? "-" : value.toFixed(3));
  const mark = (row, column) => {
    for (const plot of plots) {
      const marker = plot.querySelector(".marker");
      marker.hidden = false;
      marker.style.left = `${(100 * column) / columns}%`;
      marker.style.top = `${(100 * row) / rows}%`;
      marker.style.width = `${100 / columns}%`;
      marker.style.height = `${100 / rows}%`;
    }
  };
  const command = (row, column) => {
    const how = data.repeat;
    if (!how || !how.rows[row] || !how.columns[column]) return null;
    const layers = how.by_layer ? ` --layer-a ${how.layers[0][row]} --layer-b ${how.layers[1][column]}` : "";
    return `rdx compare ${how.rows[row]} ${how.columns[column]}${layers}${how.options ? ` ${how.options}` : ""}`;
  };
  const tell = (row, column) => {
    at = [row, column];
    mark(row, column);
    panel.replaceChildren(make("h3", {}, `${data.rows[row]} (row) and ${data.columns[column]} (column)`));
    const table = make("table");
    for (const [name, one] of Object.entries(data.measures)) {
      const line = table.insertRow();
      line.append(make("th", { scope: "row" }, one.title), make("td", {}, say(one.values[row][column])));
      const most = data.limits[row][column];
      const beside = one.chance
        ? `chance ${say(one.chance[0])}, 95 % below ${say(one.chance[1])}`
        : name === "score" && most !== null ? `two read-outs of either: at most ${say(most)}` : "";
      line.append(make("td", {}, beside));
    }
    panel.append(table);
    const found = data.pairs[`${row},${column}`] ?? (data.symmetric ? data.pairs[`${column},${row}`] : undefined);
    if (found) {
      const link = make("a", {}, "the concepts of this pair");
      link.href = `#${found}`;
      panel.append(link);
      return;
    }
    const text = row === column && data.symmetric ? null : command(row, column);
    if (!text) return;
    const line = make("p", {}, "its concepts: "), button = make("button", {}, "copy");
    button.type = "button";
    button.addEventListener("click", () => copy(text).then(() => { button.textContent = "copied"; }));
    line.append(make("code", {}, text), " ", button);
    panel.append(line);
  };
  for (const plot of plots) {
    plot.addEventListener("click", (event) => {
      const box = plot.getBoundingClientRect();
      const place = (share, count) => Math.max(0, Math.min(count - 1, Math.floor(share * count)));
      tell(place((event.clientY - box.top) / box.height, rows), place((event.clientX - box.left) / box.width, columns));
    });
    plot.addEventListener("keydown", (event) => {
      const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!step) return;
      event.preventDefault();
      const [row, column] = at ?? [0, 0];
      tell(Math.max(0, Math.min(rows - 1, row + step[0])), Math.max(0, Math.min(columns - 1, column + step[1])));
    });
  }
})();
