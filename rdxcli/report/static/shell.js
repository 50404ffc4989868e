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
  on(theme, "click", () => paint({ "": "light", light: "dark", dark: "" }[root.dataset.theme ?? ""]));

  const contents = document.querySelector(".contents") ?? {};
  on(document, "click", (event) => {
    const button = event.target;
    if (button.id === "copy") copy(button.dataset.copy, button);
    if (button.id === "heat") button.setAttribute("aria-pressed", String(!root.classList.toggle("bare")));
    if (contents.open && (button.closest("nav") || !contents.contains(button))) contents.open = false;
  });

  const search = byId("search");
  const articles = all(".concepts > article");
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
  on(search, "input", () => find(search.value));
  on(document, "keydown", (event) => {
    if (event.key === "/" && !/^(input|textarea)$/i.test(document.activeElement.tagName)) { event.preventDefault(); search.focus(); }
    if (event.key !== "Escape") return;
    contents.open = false;
    if (document.activeElement === search) { search.value = ""; find(""); }
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
  on(window, "hashchange", () => { address.read(); go(); });

  const folded = all("footer details");
  /** @param {boolean} whole */
  const printed = (whole) => {
    for (const details of folded) details.open = whole;
    for (const grid of grids) { grid.whole = whole && grid.shown?.length <= 1000; if (grid.shown) grid.draw(); }
  };
  on(window, "beforeprint", () => printed(true));
  on(window, "afterprint", () => printed(false));

  on(window, "load", async () => {
    await Promise.all([...grids, ...explorers].map((one) => one.ready));
    search.value = address.values.get("q") ?? "";
    if (search.value) find(search.value);
    go();
    // For tests and for people who save the page: how many pictures were decoded.
    const pictures = [...document.images].filter((p) => p.src);
    root.dataset.images = `${pictures.filter((p) => p.complete && p.naturalWidth > 0).length}/${pictures.length}`;
    root.dataset.ready = "true";
  });
})();
