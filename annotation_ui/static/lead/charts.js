// Charts: Vega-Lite specifications from the server, drawn by Vega, which the server serves too.

let vegaLoading = null;
const drawn = new WeakMap(); // chart element -> { text, width, result }

function loadVega() {
  vegaLoading = vegaLoading || new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = API + "vega.js";
    const fail = () => {
      vegaLoading = null;
      reject(new Unreachable("the charts' script did not load"));
    };
    script.onload = () => (window.vegaEmbed ? resolve(window.vegaEmbed) : fail());
    script.onerror = fail;
    document.head.append(script);
  });
  return vegaLoading;
}

// A figure {id, title, note, caption, spec, table: {columns, rows}, simulated} as an element; its
// drawing is filled in by `drawCharts` once it stands on the page.
function chartBox(figure) {
  return build("figure", { class: "chart-box" + (figure.wide ? " wide" : ""), "data-key": figure.id },
    build("figcaption", {},
      build("h3", {}, figure.title, figure.simulated ? simulatedChip(figure.simulated) : null),
      figure.note ? build("p", { class: "soft" }, figure.note) : null),
    figure.spec
      ? build("div", { class: "chart", "data-keep": true, "data-chart": figure.id, role: "img", "aria-label": figure.caption })
      : build("p", { class: "nothing" }, figure.caption),
    figure.spec && figure.table ? build("details", {}, build("summary", {}, "The numbers"), numbersTable(figure)) : null);
}

function numbersTable(figure) {
  return build("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "The numbers: " + figure.title },
    build("table", {},
      build("caption", { class: "out-of-sight" }, figure.title),
      build("thead", {}, build("tr", {}, figure.table.columns.map((title) => build("th", { scope: "col" }, title)))),
      build("tbody", {}, figure.table.rows.map((row) => build("tr", {}, row.map((cell, index) =>
        build(index ? "td" : "th", index ? {} : { scope: "row" }, tableCell(cell))))))));
}

function tableCell(cell) {
  if (cell === null || cell === undefined) return "none";
  return typeof cell === "object" && cell.time ? timeWords(cell.time) : String(cell);
}

// Draws the figures whose boxes stand in `within`. A drawing that is already there and says the
// same is left alone; a new one is made behind it and put in its place whole: nothing flickers.
async function drawCharts(within, figures) {
  const waiting = figures.filter((figure) => figure.spec).map((figure) => {
    const box = within.querySelector('[data-chart="' + CSS.escape(figure.id) + '"]');
    const text = JSON.stringify(figure.spec);
    const before = box && drawn.get(box);
    if (!box || !box.clientWidth || (before && before.text === text && before.width === box.clientWidth)) return null;
    return { box, text, spec: figure.spec, before };
  }).filter(Boolean);
  if (!waiting.length) return;
  const embed = await loadVega();
  for (const each of waiting) await drawOne(embed, each);
}

async function drawOne(embed, { box, text, spec, before }) {
  const inner = build("div", { class: "drawing behind" });
  box.append(inner);
  const dark = document.body.classList.contains("dark");
  const options = { actions: false, renderer: "svg", tooltip: { theme: dark ? "dark" : "light" } };
  const width = box.clientWidth;
  const result = await embed(inner, spec, options);
  inner.classList.remove("behind");
  for (const old of [...box.children]) if (old !== inner) old.remove();
  box.style.minHeight = inner.offsetHeight + "px";
  if (before) before.result.finalize();
  drawn.set(box, { text, width, result });
}
