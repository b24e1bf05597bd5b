// The charts of one study, or of several on one axis. Specifications come from the server, as the report draws them; rows of live lines are made here.
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
const FILTERS = ["rank", "targets", "alpha", "rate", "seed"];
const DUE_MS = 1500;

export class Charts {
  constructor(element) {
    this.element = element;
    this.lines = {};
    this.best = new Map();
    this.only = Object.fromEntries(FILTERS.map((field) => [field, new Set()])); // empty: all
    this.charts = new Map();
    this.sight = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const chart = this.charts.get(entry.target.dataset.chart);
        if (chart) chart.seen = entry.isIntersecting;
      }
      this.draw();
    }, { rootMargin: "200px" });
    this.sizes = new ResizeObserver(() => this.draw());
    const anew = () => {
      for (const chart of this.charts.values()) chart.embedded = "";
      this.draw();
    };
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", anew);
    document.fonts.addEventListener("loadingdone", anew); // text that was drawn without its font
    document.addEventListener("visibilitychange", () => this.draw());
  }

  setLine(kind, study, name, line) {
    const lines = (this.lines[kind] ??= {});
    const key = this.overlaid ? `${study}/${name}` : name;
    if (line) lines[key] = { ...line, study, trial: name };
    else delete lines[key];
    for (const chart of this.charts.values()) if (chart.lines === kind) chart.stale = true;
    this.offerFilters();
  }

  setBest(study, trials) {
    this.best.set(study, new Set(trials));
    for (const chart of this.charts.values()) if (chart.lines) chart.stale = true;
  }

  get overlaid() {
    return "overlay" in this.element.dataset;
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

  // ---- what is shown: ranks, rates and seeds; none pressed shows all

  offerFilters() {
    const place = this.element.querySelector("[data-filters]");
    const lines = Object.values(this.lines.train ?? {});
    const offered = FILTERS.map((field) => [field, [...new Set(lines.map((line) => line[field]))].sort((a, b) => a - b || 0)]);
    const key = JSON.stringify(offered);
    if (place.dataset.filters === key) return;
    place.dataset.filters = key;
    place.replaceChildren();
    for (const [field, values] of offered.filter(([, found]) => found.length > 1)) {
      const group = document.createElement("span");
      group.className = "filter";
      group.append(`${document.body.dataset[field]} `);
      for (const value of values) group.append(this.filterButton(field, value));
      place.append(group);
    }
    place.hidden = place.childElementCount === 0;
  }

  filterButton(field, value) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = value;
    button.setAttribute("aria-label", `${document.body.dataset[field]} ${value}`);
    button.setAttribute("aria-pressed", String(this.only[field].has(value)));
    button.addEventListener("click", () => {
      if (!this.only[field].delete(value)) this.only[field].add(value);
      button.setAttribute("aria-pressed", String(this.only[field].has(value)));
      for (const chart of this.charts.values()) chart.stale = true;
      this.draw();
    });
    return button;
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
    const width = chart.figure.clientWidth - MARGIN - (chart.spec.includes("width + 5") ? LABEL : 0);
    spec.width = Math.max(NARROWEST, Math.min(WIDEST, width));
    const color = getComputedStyle(document.body).getPropertyValue("--soft").trim();
    return JSON.stringify(spec).replaceAll(INK, color);
  }

  async embed(chart, text) {
    chart.embedded = text;
    const before = chart.view;
    const spec = JSON.parse(text);
    if (chart.lines) {
      const { rows, ends } = this.content(chart.lines);
      spec.datasets = { ...spec.datasets, ...rows };
      for (const param of spec.params ?? []) if (param.name in ends) param.value = ends[param.name];
      chart.section.dataset.points = String(rows.every_rows?.length ?? rows.bold_rows.length);
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
    chart.section.dataset.points = String(rows.every_rows?.length ?? rows.bold_rows.length);
  }

  content(kind) {
    const ends = this.ends(kind);
    return { rows: this.rows(kind), ends: ends === null ? {} : { bottom: ends[0], top: ends[1] } };
  }

  shown(kind) {
    const wanted = ([, line]) => FILTERS.every((field) => !this.only[field].size || this.only[field].has(line[field]));
    const lines = Object.entries(this.lines[kind] ?? {});
    if (kind === "memory") return lines;
    // of studies on one axis, only the best lines: all would be a thicket
    return lines.filter((one) => wanted(one) && (!this.overlaid || this.isBest(one[1])));
  }

  isBest(line) {
    return this.best.get(line.study)?.has(line.trial) ?? true;
  }

  rows(kind) {
    const [raw, bold, other, ended] = [[], [], [], []];
    const lines = this.shown(kind);
    const strong = lines.filter(([, line]) => kind === "memory" || this.isBest(line));
    for (const [trial, line] of lines) {
      const about = { trial, study: line.study, rank: line.rank, targets: line.targets, alpha: line.alpha, rate: line.rate, seed: line.seed };
      const best = strong.some(([name]) => name === trial);
      line.points.forEach(([x, y, low = y, high = y], place) => {
        if (best && strong.length <= MAX_RAW_LINES) {
          raw.push({ ...about, x, y: low, n: 2 * place });
          if (high !== low) raw.push({ ...about, x, y: high, n: 2 * place + 1 });
        }
        (best ? bold : other).push({ ...about, x, y });
      });
      if (line.ended) ended.push((best ? bold : other).at(-1));
    }
    const rows = { raw_rows: raw, bold_rows: bold, other_rows: other, ended_rows: ended };
    return kind === "memory" ? rows : { ...rows, every_rows: [...bold, ...other] };
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
