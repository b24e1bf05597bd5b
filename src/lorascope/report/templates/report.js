// Draws the page's specifications in place of their static pictures, and links the choice of ranks in all of them.
// Nothing is loaded: data stands in the page, and the specification's expressions are interpreted, never evaluated.
"use strict";
(() => {
  const page = JSON.parse(document.getElementById("page-data").textContent);
  const CHOICE = "rank_choice";
  const drawn = new Map();
  let chosen = [];

  function element(tag, properties, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
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

  // ---- what a chart offers: another axis, logarithms, single steps, all trials

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
      if (y && state.logY) y.scale = { domain: y.scale?.domain, type: "log" };
    }
    for (const parameter of copy.params ?? []) {
      if (parameter.name in state) parameter.value = state[parameter.name];
    }
    return copy;
  }

  function addControls(place, name) {
    const spec = page.charts[name];
    const offers = spec.usermeta;
    const state = { along: spec.layer[0].encoding.x.field, raw: true, others: false, logX: false, logY: false };
    if (!offers) return state;
    const bar = element("div", { className: "controls" });
    if (offers.x.length > 1) {
      const select = element("select", {});
      for (const choice of offers.x) {
        select.append(element("option", { value: choice.field, textContent: choice.title }));
      }
      select.value = state.along;
      select.addEventListener("change", () => { state.along = select.value; draw(name); });
      bar.append(element("label", {}, page.words.along + " ", select));
    }
    const wanted = { raw: offers.raw, others: offers.others, logX: true, logY: true };
    for (const key of Object.keys(wanted).filter((one) => wanted[one])) {
      const box = element("input", { type: "checkbox", checked: state[key] });
      box.addEventListener("change", () => { state[key] = box.checked; draw(name); });
      bar.append(element("label", {}, box, " " + page.words[key]));
    }
    place.querySelector("figure").before(bar);
    return state;
  }

  // ---- drawing, once a chart comes near the window

  async function draw(name) {
    const chart = drawn.get(name) ?? {};
    const place = document.querySelector(`[data-chart="${name}"]`);
    chart.state ??= addControls(place, name);
    const figure = place.querySelector("figure");
    const fresh = element("div", {});
    const { view } = await vegaEmbed(fresh, changed(page.charts[name], chart.state), {
      mode: "vega-lite", renderer: "svg", ast: true, actions: false,
      logLevel: 1, // errors: a layer that is not shown has no extent, of which Vega would warn
    });
    chart.view?.finalize();
    chart.view = view;
    drawn.set(name, chart);
    figure.replaceChildren(fresh);
    showChoice(view);
    if (CHOICE in view.getState({ signals: () => true, data: () => false }).signals) {
      view.addSignalListener(CHOICE, (_, value) => choose((value && value.rank) || [], view));
    }
  }

  addButtons();
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      near.unobserve(entry.target);
      draw(entry.target.dataset.chart);
    }
  }, { rootMargin: "300px" });
  for (const place of document.querySelectorAll("[data-chart]")) near.observe(place);
})();
