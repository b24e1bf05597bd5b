// Draws the page's specifications in place of their static pictures, links the choice of ranks in all of them, and makes
// tables sortable and commands copyable. Nothing is loaded: data and Vega stand in the page, and the specification's
// expressions are interpreted, never evaluated.
"use strict";
(() => {
  const page = JSON.parse(document.getElementById("page-data").textContent);
  const CHOICE = "rank_choice";
  const INK = "#5b6270"; // axes and text in specifications
  const MARGIN = 72; // of an axis and its title
  const LABEL = 62; // behind the right edge of the charts that have one
  const NARROWEST = 180;
  const WIDEST = 640;
  const drawn = new Map();
  let chosen = [];

  function element(tag, properties, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  // ---- Vega, unpacked once. The page's policy allows its text by its hash.

  let unpacked = null;
  async function unpack() {
    const packed = Uint8Array.from(atob(document.getElementById("library").textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    document.head.append(element("script", { textContent: await new Response(stream).text() }));
  }

  // ---- one choice of ranks for the whole page

  function showChoice(view) {
    if (!(CHOICE + "_store" in view.getState({ data: () => true, signals: () => false }).data)) return;
    const fields = view.signal(CHOICE + "_tuple_fields");
    view.data(CHOICE + "_store", chosen.map((rank) => ({ unit: "ranks", fields, values: [rank] }))).run();
  }

  function choose(ranks, source) {
    const wanted = Object.keys(page.ranks).filter((rank) => ranks.includes(rank));
    if (wanted.join() === chosen.join()) return;
    chosen = wanted;
    for (const { view } of drawn.values()) if (view !== source) showChoice(view);
    for (const button of document.querySelectorAll("#choose button")) {
      button.setAttribute("aria-pressed", String(chosen.includes(button.value)));
    }
  }

  function addButtons() {
    const names = Object.keys(page.ranks);
    if (names.length < 2) return;
    const place = document.getElementById("choose");
    place.append(element("span", { textContent: page.words.ranks }));
    for (const rank of names) {
      const dot = element("span", { className: "dot" });
      dot.style.background = page.ranks[rank];
      const button = element("button", { type: "button", value: rank }, dot, rank);
      button.setAttribute("aria-pressed", "false");
      button.addEventListener("click", () => {
        choose(chosen.includes(rank) ? chosen.filter((other) => other !== rank) : [...chosen, rank]);
      });
      place.append(button);
    }
    place.hidden = false;
  }

  // ---- what a chart offers: another axis, smoothing, logarithms, single steps, all trials

  function changed(spec, state) {
    const copy = structuredClone(spec);
    const along = (copy.usermeta?.x ?? []).map((choice) => choice.field);
    for (const layer of copy.layer) {
      const { x, y } = layer.encoding;
      if (x && along.includes(x.field)) {
        const choice = copy.usermeta.x.find((one) => one.field === state.along);
        Object.assign(x, choice);
        if (state.logX) {
          x.scale = { ...x.scale, type: "log" };
          layer.transform = [...(layer.transform ?? []), { filter: `datum["${x.field}"] > 0` }];
        }
      }
      if (y?.field === "smoothed" && !layer.data && state.smoothed) y.field = state.smoothed;
      if (y && state.logY) y.scale = { domain: y.scale?.domain, type: "log" };
    }
    for (const parameter of copy.params ?? []) {
      if (parameter.name in state) parameter.value = state[parameter.name];
    }
    return copy;
  }

  function addChoice(bar, words, choices, state, key, name) {
    const select = element("select", {});
    for (const choice of choices) {
      select.append(element("option", { value: choice.field, textContent: choice.title }));
    }
    select.value = state[key];
    select.addEventListener("change", () => { state[key] = select.value; draw(name); });
    bar.append(element("label", {}, words + " ", select));
  }

  function addControls(place, name) {
    const spec = page.charts[name];
    const offers = spec.usermeta;
    const state = { raw: true, others: false, logX: false, logY: false };
    if (!offers) return state;
    Object.assign(state, { along: offers.x[0].field, smoothed: offers.y[0]?.field });
    const bar = element("div", { className: "controls" });
    if (offers.x.length > 1) addChoice(bar, page.words.along, offers.x, state, "along", name);
    if (offers.y.length > 1) addChoice(bar, page.words.smoothing, offers.y, state, "smoothed", name);
    const wanted = { raw: offers.raw, others: offers.others, logX: true, logY: true };
    for (const key of Object.keys(wanted).filter((one) => wanted[one])) {
      const box = element("input", { type: "checkbox", checked: state[key] });
      box.addEventListener("change", () => { state[key] = box.checked; draw(name); });
      bar.append(element("label", {}, box, " " + page.words[key]));
    }
    place.querySelector("figure").before(bar);
    return state;
  }

  // ---- drawing, once a chart comes near the window, at the width it has

  function width(name, figure) {
    const label = JSON.stringify(page.charts[name]).includes("width + 5") ? LABEL : 8;
    return Math.max(NARROWEST, Math.min(WIDEST, figure.clientWidth - MARGIN - label));
  }

  async function draw(name) {
    const chart = drawn.get(name) ?? {};
    const place = document.querySelector(`[data-chart="${name}"]`);
    chart.state ??= addControls(place, name);
    drawn.set(name, chart);
    chart.wanted = (chart.wanted ?? 0) + 1;
    if (chart.busy) return; // drawn again when it ends
    chart.busy = true;
    try {
      await (unpacked ??= unpack());
      for (let done = 0; done !== chart.wanted;) {
        done = chart.wanted;
        await embed(name, chart, place.querySelector("figure"));
      }
    } finally {
      chart.busy = false;
    }
  }

  async function embed(name, chart, figure) {
    const fresh = element("div", {});
    const spec = changed(page.charts[name], chart.state);
    chart.width = spec.width = width(name, figure);
    const { view } = await vegaEmbed(fresh, spec, {
      mode: "vega-lite", renderer: "svg", ast: true, actions: false, defaultStyle: false,
      tooltip: { disableDefaultStyle: true },
      logLevel: 1, // errors: a layer that is not shown has no extent, of which Vega would warn
    });
    chart.view?.finalize();
    chart.view = view;
    for (const node of fresh.querySelectorAll("[role]")) node.removeAttribute("role"); // the figure names the chart
    figure.replaceChildren(fresh);
    showChoice(view);
    if (CHOICE in view.getState({ signals: () => true, data: () => false }).signals) {
      view.addSignalListener(CHOICE, (_, value) => choose((value && value.rank) || [], view));
    }
  }

  function watchSizes() {
    const sizes = new ResizeObserver((entries) => {
      for (const { target } of entries) {
        const name = target.closest("[data-chart]").dataset.chart;
        const chart = drawn.get(name);
        if (chart?.view && target.clientWidth && chart.width !== width(name, target)) draw(name);
      }
    });
    const near = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        near.unobserve(entry.target);
        draw(entry.target.dataset.chart);
        sizes.observe(entry.target.querySelector("figure"));
      }
    }, { rootMargin: "300px" });
    for (const place of document.querySelectorAll("[data-chart]")) near.observe(place);
  }

  // ---- copies

  async function copy(text, button) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = element("textarea", { value: text });
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    const label = button.textContent;
    button.textContent = page.words.copied;
    setTimeout(() => { button.textContent = label; }, 1200);
  }

  function addCopies() {
    for (const button of document.querySelectorAll("[data-copy-text], [data-copy]")) {
      const text = () => page.copies[button.dataset.copy] ?? button.closest(".command").querySelector("code").textContent;
      button.addEventListener("click", () => copy(text(), button));
      button.hidden = false;
    }
    for (const place of document.querySelectorAll(".copies")) place.hidden = false;
    const print = document.querySelector("[data-print]");
    print.addEventListener("click", () => window.print());
    print.hidden = false;
  }

  // ---- tables of runs: sorted by a click on a heading, filtered by the values of a column

  const FILTERED = [1, 3, 4, 5]; // rank, learning rate, seed, outcome
  const cellText = (row, place) => row.cells[place].textContent.trim();
  const number = (text) => (/^[-+−]?[\d.,]+(e[-+]?\d+)?$/i.test(text) ? Number(text.replace("−", "-").replaceAll(",", "")) : null);

  function before(one, other) {
    const [a, b] = [number(one), number(other)];
    if (a !== null && b !== null) return a - b;
    return a !== null ? -1 : b !== null ? 1 : one.localeCompare(other);
  }

  function addSorting(table) {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, place) => {
      const button = element("button", { type: "button", textContent: heading.textContent });
      heading.replaceChildren(button);
      button.addEventListener("click", () => {
        const falling = heading.getAttribute("aria-sort") === "ascending";
        for (const other of headings) other.removeAttribute("aria-sort");
        heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
        const rows = [...table.tBodies[0].rows];
        rows.sort((one, other) => (falling ? -1 : 1) * before(cellText(one, place), cellText(other, place)));
        table.tBodies[0].append(...rows);
      });
    });
  }

  function addFilters(table) {
    const place = table.closest("section").querySelector(".filters");
    const rows = [...table.tBodies[0].rows];
    const selects = [];
    for (const column of FILTERED) {
      const values = [...new Set(rows.map((row) => cellText(row, column)))].sort(before);
      if (values.length < 2) continue;
      const select = element("select", {}, element("option", { value: "", textContent: page.words.all }));
      for (const value of values) select.append(element("option", { value, textContent: value }));
      select.addEventListener("change", () => {
        for (const row of rows) row.hidden = selects.some(([at, one]) => one.value && cellText(row, at) !== one.value);
      });
      selects.push([column, select]);
      place.append(element("label", {}, table.tHead.rows[0].cells[column].textContent + " ", select));
    }
    place.hidden = selects.length === 0;
  }

  // ---- a link to something folded opens it

  function unfold() {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    const folded = target && target.closest("details");
    if (folded) folded.open = true;
  }

  addButtons();
  addCopies();
  for (const table of document.querySelectorAll("table.trials")) {
    addFilters(table);
    addSorting(table);
  }
  watchSizes();
  window.addEventListener("hashchange", unfold);
  unfold();
})();
