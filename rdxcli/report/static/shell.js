// The bar: search, colours, maps on images, the command; what the address asks for; printing.
/** @returns {boolean} */
function dark() {
  const wanted = document.documentElement.dataset.theme;
  return wanted ? wanted === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

(() => {
  const root = document.documentElement;
  const theme = byId("theme"), names = { "": "as the system has them", light: "light", dark: "dark" };
  /** @param {string} name */
  const paint = (name) => {
    if (name) root.dataset.theme = name;
    else delete root.dataset.theme;
    theme.setAttribute("aria-label", `Colours: ${names[name]}`);
    theme.textContent = name || "theme";
    document.dispatchEvent(new Event("theme"));
  };
  theme.addEventListener("click", () => paint({ "": "light", light: "dark", dark: "" }[root.dataset.theme ?? ""]));

  byId("copy")?.addEventListener("click", async (event) => {
    const button = event.currentTarget;
    await copy(button.dataset.copy);
    button.textContent = "copied";
    setTimeout(() => { button.textContent = "copy command"; }, 1500);
  });
  byId("heat")?.addEventListener("click", (event) => {
    const off = root.classList.toggle("bare");
    event.currentTarget.setAttribute("aria-pressed", String(!off));
  });
  const contents = document.querySelector(".contents");
  document.addEventListener("click", (event) => { if (contents?.open && (event.target.closest("nav") || !contents.contains(event.target))) contents.open = false; });

  const search = byId("search");
  const articles = [...document.querySelectorAll(".concepts > article")];
  /** @param {string} given */
  const find = (given) => {
    const wanted = given.trim().toLowerCase();
    for (const grid of grids) grid.search(wanted);
    for (const explorer of explorers) explorer.said();
    for (const article of articles) {
      article.hidden = Boolean(wanted) && !article.textContent.toLowerCase().includes(wanted);
      if (wanted && !article.hidden) article.closest("details")?.setAttribute("open", "");
    }
    address.set("q", wanted);
  };
  search.addEventListener("input", () => find(search.value));
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/^(input|textarea)$/i.test(document.activeElement.tagName)) { event.preventDefault(); search.focus(); }
    if (event.key === "Escape" && document.activeElement === search) { search.value = ""; find(""); }
    if (event.key === "Escape" && contents?.open) contents.open = false;
  });

  /** Go where the address says: a card, a section, an item of a table. */
  const go = () => {
    const wanted = address.anchor;
    if (!wanted) return;
    const explorer = explorers.find((one) => one.show(wanted, false));
    const target = explorer ? explorer.holder : byId(wanted);
    for (let outer = target?.parentElement; outer; outer = outer.parentElement) if (outer.tagName === "DETAILS") outer.open = true;
    target?.querySelector(":scope > details.folded")?.setAttribute("open", "");
    target?.scrollIntoView({ block: "start" });
  };
  addEventListener("hashchange", () => { address.read(); go(); });

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("footer details:not([open])")];
    for (const details of opened) details.open = true;
    for (const grid of grids) { grid.whole = grid.shown?.length <= 1000; if (grid.shown) grid.draw(); }
  });
  addEventListener("afterprint", () => {
    for (const details of opened) details.open = false;
    for (const grid of grids) { grid.whole = false; if (grid.shown) grid.draw(); }
  });

  addEventListener("load", async () => {
    await Promise.all([...grids.map((grid) => grid.ready), ...explorers.map((explorer) => explorer.ready)]);
    search.value = address.values.get("q") ?? "";
    if (search.value) find(search.value);
    go();
    // For tests and for people who save the page: how many pictures were decoded.
    const pictures = [...document.images].filter((p) => p.src);
    root.dataset.images = `${pictures.filter((p) => p.complete && p.naturalWidth > 0).length}/${pictures.length}`;
    root.dataset.ready = "true";
  });
})();
