// SPDX-License-Identifier: Apache-2.0
// The page: one form, one request, one grid.  Captions come from strangers, so text reaches the
// document through textContent only.
"use strict";

const byId = (id) => document.getElementById(id);
const form = byId("form"), text = byId("text"), file = byId("file"), weight = byId("weight");
const preview = byId("preview"), status = byId("status"), grid = byId("results");
const language = byId("language"), amount = byId("k"), card = byId("card");

const examples = ["red heart", "chat noir", "Geburtstagskuchen", "猫", "ракета", "قطة", "बारिश", "árbol de Navidad", "יין", "비행기"];

let picture = null;   // Blob to search by
let shown = [];       // the last results
let canTakePictures = true;
let running = null;   // AbortController of the request under way

// ---- captions -------------------------------------------------------------------------------

// [[language, text], ...] of a string, an array, or language -> string or array.
function captionList(captions) {
  if (!captions) return [];
  if (typeof captions === "string") return [["", captions]];
  if (Array.isArray(captions)) return captions.map((t) => ["", t]);
  return Object.entries(captions).flatMap(([code, t]) => [].concat(t).map((one) => [code, one]));
}

function wantedLanguages() {
  const own = navigator.languages || [navigator.language];
  return (language.value ? [language.value] : []).concat(own, "en")
    .flatMap((code) => [code, code.replace("-", "_"), code.split(/[-_]/)[0]]);
}

function bestCaption(list) {
  for (const code of wantedLanguages()) {
    const found = list.find(([c]) => c.toLowerCase() === code.toLowerCase());
    if (found) return found;
  }
  return list[0] || ["", ""];
}

function languageName(code) {
  try {
    return new Intl.DisplayNames(undefined, { type: "language" }).of(code.replace("_", "-")) || code;
  } catch {
    return code;
  }
}

function setText(element, [code, words]) {
  element.textContent = words;
  if (code) element.lang = code.replace("_", "-");
}

// ---- results --------------------------------------------------------------------------------

function fillDetails(details, list) {
  details.querySelector("summary").textContent = `${list.length} captions`;
  details.addEventListener("toggle", () => {
    const dl = details.querySelector("dl");
    if (!details.open || dl.firstChild) return;
    for (const entry of list) {
      const dt = document.createElement("dt"), dd = document.createElement("dd");
      dt.textContent = entry[0];
      dt.title = entry[0] ? languageName(entry[0]) : "";
      dd.dir = "auto";
      setText(dd, entry);
      dl.append(dt, dd);
    }
  });
}

function makeCard(result) {
  const li = card.content.firstElementChild.cloneNode(true);
  const list = captionList(result.captions), best = bestCaption(list);
  const shot = li.querySelector(".shot"), img = shot.querySelector("img");
  const noPicture = () => { img.hidden = true; shot.querySelector(".none").hidden = false; shot.disabled = true; };
  img.alt = best[1] || result.key;
  img.addEventListener("error", noPicture);
  if (result.thumbnail) img.src = result.thumbnail; else noPicture();
  if (result.kind === "text") {
    shot.hidden = true;
    li.classList.add("text");
    li.querySelector(".key").textContent = result.key;
  }
  shot.addEventListener("click", () => searchLike(result));
  setText(li.querySelector(".caption"), best[1] ? best : ["", result.key]);
  li.querySelector(".caption").title = result.key;
  li.querySelector(".fill").style.setProperty("--score", Math.max(0, Math.min(1, result.score)));
  li.querySelector(".number").textContent = result.score.toFixed(3);
  const details = li.querySelector("details");
  if (list.length > 1) fillDetails(details, list); else details.hidden = true;
  return li;
}

function offerLanguages() {
  const codes = new Set(shown.flatMap((r) => captionList(r.captions).map(([c]) => c)).filter(Boolean));
  const known = new Set([...language.options].map((o) => o.value));
  for (const code of [...codes].sort()) {
    if (!known.has(code)) language.add(new Option(`${languageName(code)} (${code})`, code));
  }
  language.parentElement.hidden = language.options.length < 2;
}

function show(results) {
  shown = results;
  grid.replaceChildren(...results.map(makeCard));
  offerLanguages();
}

function say(message, bad = false) {
  status.textContent = message;
  status.classList.toggle("bad", bad);
}

// ---- searching ------------------------------------------------------------------------------

function requestBody() {
  const body = new FormData();
  const words = text.value.trim();
  if (words) body.append("text", words);
  if (picture) body.append("image", picture, "query");
  if (words && picture) {
    body.append("text_weight", String(weight.value / 100));
    body.append("image_weight", String(1 - weight.value / 100));
  }
  body.append("k", amount.value);
  return body;
}

async function ask(signal) {
  const response = await fetch("/v1/search", { method: "POST", body: requestBody(), signal });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error ? answer.error.message : response.statusText);
  return answer;
}

async function search() {
  if (!text.value.trim() && !picture) {
    say("Type something, or choose a picture.");
    return;
  }
  if (running) running.abort();
  const mine = running = new AbortController();
  document.body.classList.add("busy");
  byId("examples").hidden = true;
  byId("headline").classList.add("hidden");
  remember();
  try {
    const answer = await ask(mine.signal);
    show(answer.results);
    say(answer.results.length ? `${answer.results.length} results in ${answer.took_ms.toFixed(1)} ms` : "Nothing was found.");
  } catch (error) {
    if (error.name === "AbortError") return;
    say(error instanceof TypeError ? "The server cannot be reached." : error.message, true);
  } finally {
    if (running === mine) {
      running = null;
      document.body.classList.remove("busy");
    }
  }
}

// The words are in the address, so that a search can be kept and shared.
function remember() {
  const words = text.value.trim();
  history.replaceState(null, "", words ? `?q=${encodeURIComponent(words)}` : location.pathname);
}

function usePicture(blob) {
  if (preview.src) URL.revokeObjectURL(preview.src);
  picture = blob;
  preview.hidden = byId("clear-picture").hidden = !blob;
  if (blob) preview.src = URL.createObjectURL(blob); else preview.removeAttribute("src");
  offerMix();
}

function offerMix() {
  byId("mix").hidden = !(picture && text.value.trim());
}

async function searchLike(result) {
  try {
    const response = await fetch(result.thumbnail);
    if (!response.ok) throw new Error("This picture cannot be read.");
    usePicture(await response.blob());
    text.value = "";
    offerMix();
    scrollTo({ top: 0, behavior: "smooth" });
    await search();
  } catch (error) {
    say(error.message, true);
  }
}

function takeFiles(files) {
  const blob = [...files].find((f) => f.type.startsWith("image/"));
  if (!canTakePictures) {
    say("This index is searched by words alone.", true);
  } else if (blob) {
    usePicture(blob);
    search();
  } else {
    say("That is not a picture.", true);
  }
}

// ---- events ---------------------------------------------------------------------------------

form.addEventListener("submit", (event) => { event.preventDefault(); search(); });
text.addEventListener("input", offerMix);
file.addEventListener("change", () => { if (file.files.length) takeFiles(file.files); file.value = ""; });
byId("clear-picture").addEventListener("click", () => { usePicture(null); text.focus(); });
weight.addEventListener("change", search);
amount.addEventListener("change", () => { if (shown.length) search(); });
language.addEventListener("change", () => show(shown));
preview.addEventListener("error", () => { preview.hidden = true; });

addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) { event.preventDefault(); takeFiles(event.clipboardData.files); }
});
let dragDepth = 0;
addEventListener("dragenter", (event) => {
  if ([...event.dataTransfer.types].includes("Files")) { dragDepth++; byId("drop").hidden = false; }
});
addEventListener("dragleave", () => { if (dragDepth && --dragDepth === 0) byId("drop").hidden = true; });
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  dragDepth = 0;
  byId("drop").hidden = true;
  if (event.dataTransfer.files.length) takeFiles(event.dataTransfer.files);
});

// "/" goes to the search box, arrows walk the grid.
addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== text) {
    event.preventDefault();
    text.select();
    return;
  }
  const shots = [...grid.querySelectorAll(".shot:not(:disabled)")];
  const at = shots.indexOf(document.activeElement);
  const perRow = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: perRow, ArrowUp: -perRow }[event.key];
  if (at >= 0 && step && shots[at + step]) {
    event.preventDefault();
    shots[at + step].focus();
  }
});

// ---- start ----------------------------------------------------------------------------------

for (const words of examples) {
  const button = document.createElement("button");
  button.type = "button";
  button.dir = "auto";
  button.textContent = words;
  button.addEventListener("click", () => { text.value = words; search(); });
  byId("examples").append(button);
}
language.parentElement.hidden = true;
fetch("/v1/info").then((r) => r.json()).then((info) => {
  const texts = `${info.n_texts.toLocaleString()} texts`, pictures = `${(info.n_rows - info.n_texts).toLocaleString()} pictures`;
  const rows = !info.n_texts ? pictures : info.n_texts === info.n_rows ? texts : `${pictures} and ${texts}`;
  byId("about").textContent = `${rows}, searched ${info.image ? "in any language" : "by what they mean"}`;
  if (info.image) return;
  canTakePictures = false;
  byId("headline").textContent = "Find texts by what they mean";
  text.placeholder = text.ariaLabel = "Search in your own words";
  document.querySelector(".pick").hidden = byId("examples").hidden = true;
}).catch(() => {});
text.value = new URLSearchParams(location.search).get("q") || "";
if (text.value) search(); else text.focus();
