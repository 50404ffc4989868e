"use strict";
// Scatter plots of the two representations. The data stand in the page; nothing is fetched.
window.addEventListener("load", () => {
  // For tests and for people who save the page: how many pictures were decoded.
  const pictures = [...document.images];
  document.documentElement.dataset.images = `${pictures.filter((p) => p.complete && p.naturalWidth > 0).length}/${pictures.length}`;
});
(() => {
  const holder = document.getElementById("map-data");
  if (!holder) return;
  const data = JSON.parse(holder.textContent);

  function draw(canvas, hovered) {
    const points = data.maps[canvas.dataset.map];
    const labels = data.labels[canvas.dataset.labels];
    const colours = data.colours[canvas.dataset.labels];
    const context = canvas.getContext("2d");
    const pad = 14, width = canvas.width - 2 * pad, height = canvas.height - 2 * pad;
    context.clearRect(0, 0, canvas.width, canvas.height);
    const place = (i) => [pad + points[i][0] * width, pad + (1 - points[i][1]) * height];
    const order = [...points.keys()].sort((i, j) => (labels[i] > 0) - (labels[j] > 0));
    for (const i of order) {
      const [x, y] = place(i);
      context.beginPath();
      context.arc(x, y, labels[i] > 0 ? 3.6 : 2.4, 0, 2 * Math.PI);
      context.globalAlpha = labels[i] > 0 ? 0.9 : 0.55;
      context.fillStyle = colours[labels[i]];
      context.fill();
    }
    context.globalAlpha = 1;
    if (hovered !== undefined) {
      const [x, y] = place(hovered);
      context.beginPath();
      context.arc(x, y, 7, 0, 2 * Math.PI);
      context.lineWidth = 2;
      context.strokeStyle = getComputedStyle(document.body).color;
      context.stroke();
    }
    return place;
  }

  const canvases = [...document.querySelectorAll("canvas[data-map]")];
  for (const canvas of canvases) {
    const place = draw(canvas);
    const tip = document.createElement("div");
    tip.className = "tooltip";
    tip.hidden = true;
    canvas.parentElement.append(tip);
    canvas.addEventListener("mousemove", (event) => {
      const box = canvas.getBoundingClientRect();
      const scale = canvas.width / box.width;
      const mouse = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
      let best = -1, bestDistance = 144;
      for (let i = 0; i < data.ids.length; i += 1) {
        const [x, y] = place(i);
        const distance = (x - mouse[0]) ** 2 + (y - mouse[1]) ** 2;
        if (distance < bestDistance) { best = i; bestDistance = distance; }
      }
      tip.hidden = best < 0;
      for (const other of canvases) draw(other, best < 0 ? undefined : best);
      if (best >= 0) {
        tip.textContent = data.ids[best];
        tip.style.left = `${event.clientX - box.left + 22}px`;
        tip.style.top = `${event.clientY - box.top + 4}px`;
      }
    });
    canvas.addEventListener("mouseleave", () => { tip.hidden = true; canvases.forEach((other) => draw(other)); });
  }
  document.documentElement.dataset.mapsDrawn = String(canvases.length);
})();
