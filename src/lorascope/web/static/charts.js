// The charts of one study. Specifications come from the server, as the report draws them; rows of live lines are made here.
const INK = "#5b6270"; // the colour of text in specifications, replaced by the page's own
const MARGIN = 92; // of an axis, its title and the ends of its labels
const LABEL = 60; // behind the right edge of the charts that have one
const NARROWEST = 160;
const WIDEST = 620;
const ERRORS_ONLY = 1; // an empty layer is no reason for a warning
const DRAW_MS = 900; // at least between two drawings of a chart, and more where drawing takes long, so that pages scroll
const SLOWEST_MS = 1400;
const DRAWING_SHARE = 5;
const MAX_RAW_LINES = 6; // single steps of more lines only hide the averages
const DUE_MS = 1500;

export class Charts {
  constructor(element) {
    this.element = element;
    this.compared = [this];
    this.lines = {};
    this.hidden = new Set();
    this.charts = new Map();
    this.sight = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const chart = this.charts.get(entry.target.dataset.chart);
        if (chart) chart.seen = entry.isIntersecting;
      }
      this.draw();
    }, { rootMargin: "200px" });
    this.sizes = new ResizeObserver(() => this.draw());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      for (const chart of this.charts.values()) chart.embedded = "";
      this.draw();
    });
    document.addEventListener("visibilitychange", () => this.draw());
  }

  setLine(kind, name, line) {
    const lines = (this.lines[kind] ??= {});
    if (line) lines[name] = line;
    else delete lines[name];
    for (const chart of this.charts.values()) if (chart.lines === kind) chart.stale = true;
    this.offerRanks();
  }

  place(group, charts) {
    const container = this.element.querySelector(`[data-charts="${group}"]`);
    const names = new Set(charts.map((chart) => chart.name));
    for (const section of [...container.children]) {
      if (!names.has(section.dataset.chart)) {
        this.sight.unobserve(section);
        this.charts.get(section.dataset.chart).view?.finalize();
        this.charts.delete(section.dataset.chart);
        section.remove();
      }
    }
    for (const { name, title, caption, spec, lines } of charts) {
      const chart = this.charts.get(name) ?? this.make(container, name);
      Object.assign(chart, { spec: JSON.stringify(spec), lines, stale: true });
      chart.section.querySelector("h2").textContent = title;
      chart.section.querySelector(".note").textContent = caption;
      chart.figure.setAttribute("aria-label", `${title}. ${caption}`);
    }
  }

  make(container, name) {
    const section = document.createElement("section");
    section.className = "chart";
    section.dataset.chart = name;
    const figure = document.createElement("figure");
    figure.setAttribute("role", "img");
    const note = document.createElement("p");
    note.className = "note";
    section.append(document.createElement("h2"), figure, note);
    container.append(section);
    const chart = { name, section, figure, view: null, embedded: "", seen: false, due: false, busy: false, stale: true, at: 0, cost: 0 };
    this.charts.set(name, chart);
    this.sight.observe(section);
    setTimeout(() => { chart.due = true; this.draw(); }, DUE_MS); // charts out of sight are drawn once, for printing
    this.sizes.observe(figure);
    return chart;
  }

  offerRanks() {
    const ranks = [...new Set(Object.values(this.lines.train ?? {}).map((line) => line.rank))].sort((a, b) => a - b);
    const place = this.element.querySelector("[data-ranks]");
    if (place.dataset.ranks === ranks.join()) return;
    place.dataset.ranks = ranks.join();
    place.hidden = ranks.length < 2;
    for (const old of place.querySelectorAll("button")) old.remove();
    for (const rank of ranks) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = rank;
      button.setAttribute("aria-pressed", String(!this.hidden.has(rank)));
      button.addEventListener("click", () => {
        if (!this.hidden.delete(rank)) this.hidden.add(rank);
        button.setAttribute("aria-pressed", String(!this.hidden.has(rank)));
        for (const chart of this.charts.values()) chart.stale = true;
        this.draw();
      });
      place.append(button);
    }
  }

  draw() {
    if (document.hidden) return;
    for (const chart of this.charts.values()) {
      if ((chart.seen || (chart.due && !chart.view)) && !chart.busy) this.drawOne(chart);
    }
  }

  async drawOne(chart) {
    const spec = this.fitted(chart);
    const anew = spec !== chart.embedded;
    if (chart.lines ? !chart.stale && !anew : !anew) return;
    if (chart.lines && !this.shown(chart.lines).length && !chart.view) return;
    chart.busy = true;
    try {
      const pause = Math.min(Math.max(DRAW_MS, DRAWING_SHARE * chart.cost), SLOWEST_MS);
      const wait = pause - (performance.now() - chart.at);
      if (wait > 0 && chart.view) await new Promise((done) => setTimeout(done, wait));
      chart.stale = false;
      chart.at = performance.now();
      if (anew) await this.embed(chart, spec);
      else await this.fill(chart);
      chart.cost = performance.now() - chart.at;
    } finally {
      chart.busy = false;
    }
    this.draw(); // new points, or another width, may have come meanwhile
  }

  fitted(chart) {
    const spec = JSON.parse(chart.spec);
    const drawn = spec.width;
    const label = `{"value":${drawn + 5}}`; // what stands behind the right edge
    const width = chart.figure.clientWidth - MARGIN - (chart.spec.includes(label) ? LABEL : 0);
    spec.width = Math.max(NARROWEST, Math.min(WIDEST, width));
    const color = getComputedStyle(document.body).getPropertyValue("--soft").trim();
    return JSON.stringify(spec).replaceAll(INK, color).replaceAll(label, '{"value":{"expr":"width + 5"}}');
  }

  async embed(chart, text) {
    chart.embedded = text;
    const before = chart.view;
    const spec = JSON.parse(text);
    if (chart.lines) {
      const { rows, ends } = this.content(chart.lines);
      spec.datasets = { ...spec.datasets, ...rows };
      for (const param of spec.params ?? []) if (param.name in ends) param.value = ends[param.name];
      chart.section.dataset.points = String(rows.bold_rows.length);
    }
    const { view } = await vegaEmbed(chart.figure, spec, {
      mode: "vega-lite", renderer: "canvas", actions: false, ast: true, defaultStyle: false, logLevel: ERRORS_ONLY,
      tooltip: { disableDefaultStyle: true },
    });
    before?.finalize();
    chart.view = view;
    const canvas = chart.figure.querySelector("canvas");
    for (const node of [canvas, canvas?.parentElement]) {
      // The figure names the chart; a second, nameless picture inside it would only confuse.
      for (const name of ["role", "aria-label", "aria-roledescription", "tabindex"]) node?.removeAttribute(name);
    }
  }

  async fill(chart) {
    const { rows, ends } = this.content(chart.lines);
    for (const [name, values] of Object.entries(rows)) {
      if (chart.spec.includes(`"${name}"`)) chart.view.data(name, values);
    }
    for (const [name, value] of Object.entries(ends)) chart.view.signal(name, value);
    await chart.view.resize().runAsync();
    chart.section.dataset.points = String(rows.bold_rows.length);
  }

  content(kind) {
    const ends = this.compared.map((charts) => charts.ends(kind)).filter((pair) => pair !== null);
    const [bottom, top] = [Math.min(...ends.map(([low]) => low)), Math.max(...ends.map(([, high]) => high))];
    return { rows: this.rows(kind), ends: ends.length ? { bottom, top } : {} };
  }

  shown(kind) {
    return Object.entries(this.lines[kind] ?? {}).filter(([, line]) => !this.hidden.has(line.rank));
  }

  rows(kind) {
    const [raw, bold, ended] = [[], [], []];
    const lines = this.shown(kind);
    for (const [trial, line] of lines) {
      const about = { trial, rank: line.rank };
      line.points.forEach(([x, y, low = y, high = y], place) => {
        if (lines.length <= MAX_RAW_LINES) {
          raw.push({ ...about, x, y: low, n: 2 * place });
          if (high !== low) raw.push({ ...about, x, y: high, n: 2 * place + 1 });
        }
        bold.push({ ...about, x, y });
      });
      if (line.ended) ended.push(bold.at(-1));
    }
    return { raw_rows: raw, bold_rows: bold, ended_rows: ended };
  }

  // The ends of the loss axis: what rises far above the start diverges, and would press all lines flat.
  ends(kind) {
    const lines = this.shown(kind).map(([, line]) => line.points.map(([, y, low = y, high = y]) => [low, high]));
    if (kind === "memory" || !lines.length) return null;
    const highest = (points) => Math.max(...points.map(([, high]) => high));
    const start = Math.max(...lines.map((points) => highest(points.slice(0, 3))));
    const low = Math.min(...lines.flat().map(([lowest]) => lowest));
    const top = Math.min(highest(lines.flat()), start + Math.max(start - low, 0.1 * Math.abs(start)));
    const margin = 0.04 * (top - low) || 0.01;
    return [low - margin, top + margin];
  }
}
