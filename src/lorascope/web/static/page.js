// Shows what the server says has changed. All words and tables come from the server as escaped HTML; this file keeps
// the connection, the points of the lines, and the charts.
import { Charts } from "/assets/charts.js";

const SILENCE_MS = 12000; // the server says something every five seconds
export const studies = new Map();
for (const element of document.querySelectorAll("[data-study]")) {
  studies.set(element.dataset.study, { element, charts: new Charts(element), hash: null });
}

function show(element, html) {
  if (!element) return;
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

function apply(study, update) {
  if (update.anew) study.charts.clear();
  for (const name of ["problem", "head", "status", "trials", "result"]) {
    if (name in update) show(study.element.querySelector(`[data-part="${name}"]`), update[name]);
  }
  if ("data_hash" in update) study.hash = update.data_hash;
  if ("state" in update) announce(study.element, update.state);
  study.charts.take(update);
}

function announce(element, { name, label }) {
  // Said aloud when it changes; the counts beside it change every second and are not.
  element.dataset.state = name;
  element.querySelector("[data-said]").textContent = `${element.dataset.study}: ${label}`;
  if (studies.size === 1) document.title = `${label} · ${element.dataset.study}`;
}

function compareRows() {
  const note = document.getElementById("different-rows");
  const hashes = new Set([...studies.values()].map((study) => study.hash).filter((hash) => hash !== null));
  if (note) note.hidden = hashes.size < 2;
  const all = [...studies.values()].map((study) => study.charts);
  for (const charts of all) charts.beside = hashes.size === 1 ? all : [charts];
}

let seen = "";
let source = null;
let heard = Date.now();
const lost = document.getElementById("lost");

function hear() {
  heard = Date.now();
  if (!lost.hidden) lost.hidden = true;
}

function receive(event) {
  seen = event.lastEventId;
  hear();
  const update = JSON.parse(event.data);
  if (update.list !== undefined) show(document.querySelector("[data-list]"), update.list);
  for (const [name, part] of Object.entries(update.studies ?? {})) apply(studies.get(name), part);
  compareRows();
  for (const study of studies.values()) study.charts.draw();
}

function connect() {
  source?.close();
  const after = seen ? `&after=${encodeURIComponent(seen)}` : "";
  source = new EventSource(`${document.body.dataset.stream}${after}`);
  source.onmessage = receive;
  source.addEventListener("beat", hear);
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
