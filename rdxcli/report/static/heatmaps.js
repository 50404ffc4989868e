// Heat maps of layers or models: a chosen cell is marked in every map, and its numbers are told below.
(() => {
  const data = held("cells"), panel = byId("cell");
  if (!data) return;
  const plots = all(".heatmap .plot");
  const rows = data.rows.length, columns = data.columns.length;
  let at = null;
  const say = (value) => (value === null || value === undefined ? "-" : value.toFixed(3));
  const command = (row, column) => {
    const how = data.repeat;
    if (!how || !how.rows[row] || !how.columns[column]) return null;
    const layers = how.by_layer ? ` --layer-a ${how.layers[0][row]} --layer-b ${how.layers[1][column]}` : "";
    return `rdx compare ${how.rows[row]} ${how.columns[column]}${layers}${how.options ? ` ${how.options}` : ""}`;
  };
  const tell = (row, column) => {
    at = [row, column];
    for (const marker of all(".heatmap .marker")) {
      marker.hidden = false;
      lay(marker, column / columns, row / rows, 1 / columns, 1 / rows);
    }
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
      panel.append(make("a", { href: `#${found}` }, "the concepts of this pair"));
      return;
    }
    const text = row === column && data.symmetric ? null : command(row, column);
    if (!text) return;
    const button = make("button", { type: "button" }, "copy");
    on(button, "click", () => copy(text, button));
    panel.append(make("p", {}, "its concepts: ", make("code", {}, text), " ", button));
  };
  for (const plot of plots) {
    const go = (row, column) => tell(within(row, rows - 1), within(column, columns - 1));
    on(plot, "click", (event) => {
      const [x, y] = shares(event, plot);
      go(Math.floor(y * rows), Math.floor(x * columns));
    });
    on(plot, "keydown", (event) => {
      const step = arrow(event);
      if (step) go((at?.[0] ?? 0) + step[1], (at?.[1] ?? 0) + step[0]);
    });
  }
})();
