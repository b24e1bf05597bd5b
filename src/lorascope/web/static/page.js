// Shows the parts of the page that the server sends. A part comes whole whenever it changes: words and tables as escaped
// HTML, charts as specifications, lines as points.
import { Charts } from "/assets/charts.js";

const SILENCE_MS = 12000; // the server sends something every five seconds
const overlay = document.querySelector("[data-overlay]"); // studies that are compared share their charts
const shared = overlay && new Charts(overlay);
shared?.place("live_charts", JSON.parse(overlay.dataset.overlay));
export const studies = new Map();
for (const element of document.querySelectorAll("[data-study]")) {
  studies.set(element.dataset.study, { element, charts: shared ?? new Charts(element), hash: null });
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

function apply(name, study, [part, chart, line], value) {
  if (part === "lines") study.charts.setLine(chart, name, line, value);
  else if (part === "best") study.charts.setBest(name, value ?? []);
  else if (part === "live_charts" || part === "summary_charts") {
    if (!shared) study.charts.place(part, value ?? []);
  } else if (part === "state") announce(study.element, value);
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
  if (!shared) return;
  const hashes = new Set([...studies.values()].map((study) => study.hash).filter((hash) => hash !== null));
  document.getElementById("different-rows").hidden = hashes.size < 2;
  overlay.hidden = hashes.size > 1;
}

async function copy(button) {
  const text = button.parentElement.querySelector("code").textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    getSelection().selectAllChildren(button.parentElement.querySelector("code"));
    document.execCommand("copy");
  }
}

document.addEventListener("click", (event) => {
  if (event.target.matches("[data-copy]")) copy(event.target);
});

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
    const [name, ...part] = path.split("/");
    apply(name, studies.get(name), part, value);
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
