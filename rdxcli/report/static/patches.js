// Places in the images of a concept: a click on one shows, for each model, which places it finds like it.
(() => {
  const data = held("patch-data");
  if (!data) return;
  const sides = Object.keys(data.sides);
  /** Index of the patch of a model under a place of a tile, or -1 outside of what it sees. */
  const patchAt = (side, box, x, y) => {
    const [rows, columns] = data.sides[side].grid, [top, left, bottom, right] = box;
    const row = Math.floor((rows * (y - top)) / (bottom - top)), column = Math.floor((columns * (x - left)) / (right - left));
    return row < 0 || column < 0 || row >= rows || column >= columns ? -1 : row * columns + column;
  };
  for (const [name, concept] of Object.entries(data.concepts)) {
    const article = byId(name), pictures = article ? all(".shown > img:first-child", article).slice(0, concept.images) : [];
    if (pictures.length < concept.images) continue;
    const holder = make("details", { className: "patches" }, make("summary", {}, "where in the images?"));
    const said = make("p", { className: "facts" }, "Choose a place: what each model finds like it lights up; nothing does where 95 % of "
      + `the patches of ${data.others} other images are as much alike.`);
    const tiles = [];
    const values = {};
    const show = (image, x, y) => {
      for (const side of sides) {
        const [rows, columns] = data.sides[side].grid, places = rows * columns, total = places * concept.images;
        const patch = patchAt(side, concept[side].boxes[image], x, y);
        for (const tile of tiles.filter((one) => one.side === side)) {
          const pixels = tile.canvas.getContext("2d").createImageData(columns, rows);
          for (let i = 0; i < places; i++) {
            const own = tile.image === image && i === patch;
            const alike = patch < 0 ? 0 : values[side][(image * places + patch) * total + tile.image * places + i];
            pixels.data.set(own ? [255, 255, 255, 255] : [213, 94, 0, 0.85 * alike], 4 * i);
          }
          tile.canvas.getContext("2d").putImageData(pixels, 0, 0);
        }
      }
    };
    on(holder, "toggle", async () => {
      if (!holder.open || tiles.length) return;
      for (const side of sides) {
        const { name: model, grid } = data.sides[side], { above, boxes } = concept[side];
        holder.append(make("p", { className: "strip-of" }, `${model}: ${(100 * above).toFixed(0)} % of the pairs of places in different images are alike (chance 5 %)`));
        const row = make("div", { className: "row" });
        pictures.forEach((picture, image) => {
          const canvas = make("canvas", { width: grid[1], height: grid[0] }), [top, left, bottom, right] = boxes[image];
          const tile = make("div", { className: "tile" }, make("img", { src: picture.src, alt: picture.closest("figure").dataset.id }), canvas);
          lay(canvas, left, top, right - left, bottom - top);
          on(tile, "click", (event) => show(image, ...shares(event, tile)));
          tiles.push({ side, image, canvas });
          row.append(tile);
        });
        holder.append(row);
        values[side] = new Uint8Array(await unpack(concept[side].values));
      }
      show(0, 0.5, 0.5);
    });
    holder.append(said);
    article.append(holder);
  }
})();
