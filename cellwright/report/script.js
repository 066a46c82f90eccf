"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const config = { responsive: true, displaylogo: false, displayModeBar: false };
  const place = (name) => document.querySelector(`[data-chart="${name}"]`);
  const picked = (name, otherwise) => document.querySelector(`[data-pick="${name}"]`)?.value ?? otherwise;
  const text = (value) => String(value).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const draw = (name, figure) => Plotly.react(place(name), figure.data, figure.layout, config);

  for (const name of ["energy", "steps", "curves", "differences", "reliability", "pit", "rollout-weights", "rollout-errors"]) if (charts[name]) draw(name, charts[name]);
  for (const [name, [, figure]] of Object.entries(charts.importance ?? {})) draw(name, figure);

  const drawSites = () => {
    if (charts.sites?.length) draw("sites", charts.sites[picked("layer", 0)].figure);
  };

  const drawForecasts = () => {
    const all = charts.forecasts;
    if (!all) return;
    const target = picked("target", 0), step = picked("step", 1);
    const values = all.values[`${picked("site", 0)}/${target}/${step}`];
    if (!values) return;
    const line = (name, title, extra) => ({
      type: "scatter", mode: "lines", name: text(title), x: all.times[step], y: values[name],
      line: { color: all.colours[name], ...extra }, hovertemplate: "%{y:.4g}",
    });
    const forecasts = all.lines.map((key) => line(key, all.titles[key], { width: key === all.lines[0] ? 2.2 : 1.3 }));
    const layout = structuredClone(all.figure.layout);
    layout.yaxis.title.text = `${text(all.targets[target])} (${text(all.units[all.targets[target]])})`;
    draw("forecasts", { data: [line("truth", "truth", { width: 1.5 }), ...forecasts.reverse()], layout });
  };

  const drawFederation = () => {
    const chosen = Number(picked("federation", 0));
    for (const block of document.querySelectorAll("[data-federation]")) block.hidden = Number(block.dataset.federation) !== chosen;
    for (const [name, figure] of Object.entries(charts.federations?.[chosen] ?? {})) if (figure) draw(`federation-${chosen}-${name}`, figure);
  };

  const sortBy = (table, index, heading) => {
    const down = heading.getAttribute("aria-sort") === "ascending";
    const numeric = heading.dataset.sort === "number";
    const value = (row) => row.cells[index].dataset.value;
    const compare = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = numeric ? Number(x) - Number(y) : x.localeCompare(y);
      return down ? -order : order;
    };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
    for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((heading, index) => {
      heading.tabIndex = 0;
      heading.addEventListener("click", () => sortBy(table, index, heading));
      heading.addEventListener("keydown", (event) => { if (event.key === "Enter") sortBy(table, index, heading); });
    });
  }
  for (const select of document.querySelectorAll("[data-pick]")) {
    select.addEventListener("change", { layer: drawSites, federation: drawFederation }[select.dataset.pick] ?? drawForecasts);
  }
  for (const box of document.querySelectorAll("[data-toggle]")) {
    box.addEventListener("change", () => {
      for (const cell of document.querySelectorAll(`table.board [data-group="${box.dataset.toggle}"]`)) cell.classList.toggle("shown", box.checked);
    });
  }
  drawSites();
  drawForecasts();
  drawFederation();
})();
