// Shows the parts of the page that the server sends. A part comes whole whenever it changes: words and tables as escaped
// HTML, charts as specifications, lines as points.
import { Charts } from "/assets/charts.js";

const SILENCE_MS = 12000; // the server sends something every five seconds
export const studies = new Map();
for (const element of document.querySelectorAll("[data-study]")) {
  studies.set(element.dataset.study, { element, charts: new Charts(element), hash: null });
}

function show(element, html) {
  const open = element.querySelector("details")?.open;
  const scroll = element.querySelector(".scroll")?.scrollLeft;
  const chosen = new Set([...element.querySelectorAll("input:checked")].map((box) => box.value));
  const focused = element.contains(document.activeElement) ? document.activeElement.value ?? "" : null;
  element.innerHTML = html;
  if (open) element.querySelector("details")?.setAttribute("open", "");
  if (scroll) element.querySelector(".scroll").scrollLeft = scroll;
  for (const box of element.querySelectorAll("input")) {
    box.checked = chosen.has(box.value);
    if (focused === box.value) box.focus();
  }
}

function apply(study, [part, chart, line], value) {
  if (part === "lines") study.charts.setLine(chart, line, value);
  else if (part === "live_charts" || part === "summary_charts") study.charts.place(part, value ?? []);
  else if (part === "state") announce(study.element, value);
  else if (part === "data_hash") study.hash = value;
  else show(study.element.querySelector(`[data-part="${part}"]`), value ?? "");
}

function announce(element, { name, label }) {
  // Announced when it changes; the counts next to it change every second and are not.
  element.dataset.state = name;
  element.querySelector("[data-said]").textContent = `${element.dataset.study}: ${label}`;
  if (studies.size === 1) document.title = `${label} · ${element.dataset.study}`;
}

function compareRows() {
  const note = document.getElementById("different-rows");
  const hashes = new Set([...studies.values()].map((study) => study.hash).filter((hash) => hash !== null));
  if (note) note.hidden = hashes.size < 2;
  const all = [...studies.values()].map((study) => study.charts);
  for (const charts of all) charts.compared = hashes.size === 1 ? all : [charts];
}

let source = null;
let heard = Date.now();
const lost = document.getElementById("lost");

function hear() {
  heard = Date.now();
  if (!lost.hidden) lost.hidden = true;
}

function receive(event) {
  hear();
  for (const [path, value] of Object.entries(JSON.parse(event.data))) {
    const [study, ...part] = path.split("/");
    apply(studies.get(study), part, value);
  }
  compareRows();
  for (const { charts } of studies.values()) charts.draw();
}

function connect() {
  source?.close();
  source = new EventSource(document.body.dataset.stream);
  source.onmessage = receive;
  source.addEventListener("heartbeat", hear);
  source.onerror = () => { lost.hidden = false; };
}

setInterval(() => {
  if (Date.now() - heard > SILENCE_MS) {
    lost.hidden = false;
    heard = Date.now();
    connect();
  }
}, 1000);
connect();
