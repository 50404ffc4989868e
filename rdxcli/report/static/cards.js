"use strict";
// Cards that are not drawn at first: they are packed in the page, unfold a few at a time, and can be searched.
(() => {
  const STEP = 24;
  const sheet = JSON.parse(document.getElementById("pictures")?.textContent ?? "[]");
  for (const more of document.querySelectorAll("div.more")) {
    const grid = more.previousElementSibling;
    const button = more.querySelector("button"), said = more.querySelector("span"), search = more.querySelector("input");
    const shown = [...grid.children];
    /** @type {Element[] | null} */
    let later = null;
    let drawn = 0;
    /** @returns {Promise<Element[]>} every packed card; Jinja has escaped what came from outside */
    const unpack = async () => {
      if (later) return later;
      const bytes = Uint8Array.from(atob(more.dataset.cards), (c) => c.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      later = JSON.parse(await new Response(stream).text()).map((html) => {
        const holder = document.createElement("template");
        holder.innerHTML = html;
        return holder.content.firstElementChild;
      });
      return later;
    };
    /** @param {Element} card */
    const place = (card) => {
      for (const picture of card.querySelectorAll("img[data-picture]")) picture.src = sheet[picture.dataset.picture];
      grid.append(card);
    };
    button.addEventListener("click", async () => {
      const cards = await unpack();
      cards.slice(drawn, drawn + STEP).forEach(place);
      drawn = Math.min(drawn + STEP, cards.length);
      said.textContent = `${shown.length + drawn} of ${shown.length + cards.length} are shown`;
      button.hidden = drawn >= cards.length;
    });
    search.addEventListener("input", async () => {
      const all = [...shown, ...(await unpack())], wanted = search.value.trim().toLowerCase();
      const fitting = wanted ? all.filter((card) => card.textContent.toLowerCase().includes(wanted)) : all.slice(0, shown.length + drawn);
      grid.replaceChildren();
      fitting.slice(0, wanted ? 4 * STEP : fitting.length).forEach(place);
      said.textContent = wanted ? `${fitting.length} of ${all.length} fit` : `${fitting.length} of ${all.length} are shown`;
      button.hidden = Boolean(wanted) || drawn >= all.length - shown.length;
    });
  }
})();
