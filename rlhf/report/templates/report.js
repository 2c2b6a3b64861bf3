"use strict";
(() => {
  const holder = document.getElementById("charts");
  const figures = holder ? JSON.parse(holder.textContent) : [];
  const options = { actions: false, renderer: "svg", tooltip: { theme: "custom" } };
  const drawn = figures.map((figure) =>
    vegaEmbed(document.getElementById("chart-" + figure.id), figure.spec, options));
  Promise.all(drawn).then(() => { document.documentElement.dataset.charts = "drawn"; });

  // A link opens the details that it points to or into.
  const open = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    let closed = false;
    for (let at = target; at; at = at.parentElement) {
      if (at.tagName === "DETAILS" && !at.open) closed = at.open = true;
    }
    if (closed) target.scrollIntoView();
  };
  addEventListener("hashchange", open);
  open();

  // On paper nothing can be opened, so what each number rests on is printed open.
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details.origin, details.more")) details.open = true;
  });

  const search = document.getElementById("search");
  if (!search) return;
  const cards = [...document.querySelectorAll(".prompt")];
  const usual = cards.map((card) => !card.hidden);
  const texts = cards.map((card) => card.textContent.toLowerCase());
  const count = document.getElementById("search-count");
  let all = false;
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    cards.forEach((card, index) => {
      const match = words.length
        ? words.every((word) => texts[index].includes(word)) : all || usual[index];
      card.hidden = !match;
      shown += match ? 1 : 0;
    });
    count.textContent = `${shown} shown`;
  };
  search.addEventListener("input", filter);
  document.getElementById("show-all").addEventListener("click", (event) => {
    all = !all;
    event.target.textContent = all ? "Show fewer" : "Show all";
    search.value = "";
    filter();
  });
})();
