// The charts of one study. Specifications come from the server, the same that the report draws; the points of growing
// lines come a few at a time and are kept here.
const INK = "#5b6270"; // the colour of text in specifications, replaced by the page's own
const NARROW = 480;
const ROOM_FOR_AXIS = 66;
const ROOM_FOR_LEGEND = 62;
const DRAW_MS = 900;

export function smooth(values) {
  // The average of analysis: exponential over a twentieth of the points, without the pull towards a start value.
  const keep = 1 - 1 / Math.max(values.length / 20, 1);
  let total = 0;
  let weight = 0;
  return values.map((value) => {
    total = keep * total + value;
    weight = keep * weight + 1;
    return total / weight;
  });
}

export class Charts {
  constructor(element) {
    this.element = element;
    this.beside = [this];
    this.hidden = new Set();
    this.charts = new Map();
    this.clear();
    this.sight = new IntersectionObserver((entries) => {
      for (const entry of entries) this.charts.get(entry.target.dataset.chart).seen = entry.isIntersecting;
      this.draw();
    }, { rootMargin: "200px" });
    this.sizes = new ResizeObserver(() => this.draw());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      for (const chart of this.charts.values()) chart.embedded = "";
      this.draw();
    });
    document.addEventListener("visibilitychange", () => this.draw());
  }

  clear() {
    this.lines = {};
    this.marks = new Map();
  }

  take(update) {
    for (const mark of update.marks ?? []) this.marks.set(mark.id, mark);
    for (const [chart, lines] of Object.entries(update.lines ?? {})) {
      for (const [name, { anew, points }] of Object.entries(lines)) this.extend(chart, name, anew, points);
    }
    if (update.lines_charts) this.place("lines", update.lines_charts);
    if (update.charts) this.place("summary", update.charts);
    if (update.marks) this.offerRanks();
    for (const chart of this.charts.values()) {
      if (!chart.lines || update.lines?.[chart.lines] || update.marks) chart.stale = true;
    }
  }

  extend(chart, name, anew, points) {
    const lines = (this.lines[chart] ??= {});
    if (anew || !(name in lines)) lines[name] = [];
    const line = lines[name];
    for (const point of points) {
      if (line.length && line.at(-1)[0] === point[0]) line[line.length - 1] = point;
      else line.push(point);
    }
  }

  place(group, charts) {
    const container = this.element.querySelector(`[data-charts="${group}"]`);
    if (!container) return;
    const names = new Set(charts.map((chart) => chart.name));
    for (const section of [...container.children]) {
      if (!names.has(section.dataset.chart)) {
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
    const chart = { name, section, figure, view: null, embedded: "", seen: false, busy: false, stale: true, at: 0 };
    this.charts.set(name, chart);
    this.sight.observe(section);
    this.sizes.observe(figure);
    return chart;
  }

  offerRanks() {
    const ranks = [...new Set([...this.marks.values()].map((mark) => mark.rank))].sort((a, b) => a - b);
    const place = this.element.querySelector("[data-ranks]");
    if (!place || place.dataset.ranks === ranks.join()) return;
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
      if (chart.seen && !chart.busy) this.drawOne(chart);
    }
  }

  async drawOne(chart) {
    const wait = DRAW_MS - (performance.now() - chart.at);
    const spec = this.fitted(chart);
    const changed = spec !== chart.embedded;
    if (!changed && !(chart.stale && chart.lines)) return;
    chart.busy = true;
    if (wait > 0 && chart.view) await new Promise((done) => setTimeout(done, wait));
    chart.stale = false;
    chart.at = performance.now();
    if (changed) await this.embed(chart, spec);
    if (chart.lines) await this.fill(chart);
    chart.busy = false;
    if (chart.stale) this.draw();
  }

  fitted(chart) {
    const room = chart.figure.clientWidth;
    const spec = JSON.parse(chart.spec);
    const drawn = spec.width;
    const narrow = room < NARROW;
    spec.width = Math.max(160, Math.min(drawn, room - ROOM_FOR_AXIS - (narrow && chart.lines ? 8 : ROOM_FOR_LEGEND)));
    if (narrow) spec.config.legend = { ...spec.config.legend, orient: "bottom" };
    const color = getComputedStyle(document.body).getPropertyValue("--soft").trim();
    return JSON.stringify(spec)
      .replaceAll(INK, color)
      .replaceAll(`{"value":${drawn + 5}}`, '{"value":{"expr":"width + 5"}}'); // what stands behind the right edge
  }

  async embed(chart, spec) {
    chart.embedded = spec;
    const before = chart.view;
    const { view } = await vegaEmbed(chart.figure, JSON.parse(spec), {
      mode: "vega-lite", renderer: "canvas", actions: false, ast: true, defaultStyle: false,
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
    const { view } = chart;
    const { raw, bold, ended } = this.rows(chart.lines);
    view.data("raw_rows", raw).data("bold_rows", bold);
    if (chart.lines !== "memory") {
      const ends = this.beside.map((charts) => charts.ends(chart.lines)).filter((pair) => pair !== null);
      if (ends.length) {
        view.signal("bottom", Math.min(...ends.map(([low]) => low)));
        view.signal("top", Math.max(...ends.map(([, high]) => high)));
      }
      view.data("ended_rows", ended);
    }
    await view.resize().runAsync();
    chart.section.dataset.points = String(bold.length);
  }

  shown(kind) {
    const lines = Object.entries(this.lines[kind] ?? {}).filter(([, points]) => points.length);
    return kind === "memory" ? lines : lines.filter(([name]) => !this.hidden.has(this.marks.get(name)?.rank));
  }

  rows(kind) {
    const raw = [];
    const bold = [];
    const ended = [];
    for (const [name, points] of this.shown(kind)) {
      const mark = this.marks.get(name);
      const about = { trial: name, rank: mark?.rank };
      const means = points.map((point) => point[2]);
      const level = kind === "train" ? smooth(means) : means;
      points.forEach(([number, x, , low, high], place) => {
        if (kind !== "eval") raw.push({ ...about, x, y: low, n: 2 * number });
        if (kind !== "eval" && high !== low) raw.push({ ...about, x, y: high, n: 2 * number + 1 });
        bold.push({ ...about, x, y: level[place] });
      });
      if (mark?.ended) ended.push(bold.at(-1));
    }
    return { raw, bold, ended };
  }

  // The ends of the axis: what lies above the start of all lines is divergence, which would press the rest flat.
  ends(kind) {
    const lines = this.shown(kind).map(([, points]) => points);
    if (!lines.length) return null;
    const start = Math.max(...lines.map((points) => Math.max(...points.slice(0, 3).map((point) => point[kind === "eval" ? 2 : 4]))));
    const low = Math.min(...lines.map((points) => Math.min(...points.map((point) => point[3]))));
    const margin = 0.04 * (start - low) || 0.01;
    return [low - margin, start + margin];
  }
}
