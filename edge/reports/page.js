
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const emotions = data.emotions, labels = [...emotions, "unsure"];
const levels = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const PAGE = 40, BAND = 20, AXIS = 16, HEIGHT = 112, NS = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);

function make(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}
function draw(name, attributes = {}, ...children) {
  const node = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}
function clock(seconds) {
  const whole = Math.floor(seconds), h = Math.floor(whole / 3600), m = Math.floor(whole / 60) % 60;
  const s = String(whole % 60).padStart(2, "0");
  return h ? `${h}:${String(m).padStart(2, "0")}:${s}` : `${m}:${s}`;
}
function exact(seconds) {
  const tenths = Math.round(seconds * 10);
  return `${clock(Math.floor(tenths / 10))}.${tenths % 10}`;
}
function spoken(seconds) {
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 5400) return `${(seconds / 60).toFixed(seconds < 600 ? 1 : 0)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}
const percent = (share) => `${Math.round(100 * share)} %`;
const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

function shares(summary) {
  const total = labels.reduce((sum, label) => sum + summary.seconds[label], 0);
  return labels.map((label) => [label, total ? summary.seconds[label] / total : 0]);
}
function bar(summary) {
  const parts = shares(summary), spans = parts.filter(([, share]) => share > 0);
  const said = spans.map(([label, share]) => `${label} ${percent(share)}`).join(", ") || "no speech";
  const svg = draw("svg", {class: "bar", viewBox: "0 0 1000 14", preserveAspectRatio: "none", role: "img", "aria-label": said});
  let left = 0;
  for (const [label, share] of spans) {
    svg.append(draw("rect", {class: label, x: left, y: 0, width: 1000 * share, height: 14}));
    left += 1000 * share;
  }
  const key = make("ul", {class: "key"});
  for (const [label, share] of spans) key.append(make("li", {}, make("i", {class: label}), `${label} ${percent(share)}`));
  if (!spans.length) key.append(make("li", {class: "soft"}, "no utterance"));
  return [svg, key];
}
function facts(pairs) {
  const list = make("dl", {class: "facts"});
  for (const [name, value] of pairs) list.append(make("div", {}, make("dt", {}, name), make("dd", {class: "num"}, value)));
  return list;
}
function derived(summary) {
  const names = Object.keys(summary.ratings);
  if (!names.length) return "";
  return make("p", {class: "soft"}, "derived, 1 to 5: " + names.map((name) => `${name} ${summary.ratings[name].toFixed(1)}`).join(", "));
}
function speechOf(summary) {
  return summary.duration_s ? percent(Math.min(1, summary.speech_s / summary.duration_s)) : "–";
}

function curvePoints(text) {
  if (!text) return [];
  const [first, step, letters] = text.split(" "), points = [];
  for (let at = 0, number = 0; at < letters.length; number++) {
    const time = Number(first) + number * Number(step);
    if (letters[at] === ".") { points.push([time, null]); at += 1; continue; }
    const probs = emotions.map((_, index) => levels.indexOf(letters[at + index]) / 63);
    const total = probs.reduce((sum, prob) => sum + prob, 0) || 1;
    points.push([time, probs.map((prob) => prob / total)]);
    at += emotions.length;
  }
  return points;
}
function areas(points, x, height) {
  const paths = emotions.map(() => "");
  let run = [];
  const flush = () => {
    if (run.length === 1) run.push([run[0][0] + Math.max(1, x(points.step || 0.24) - x(0)), run[0][1]]);
    if (run.length > 1) emotions.forEach((_, index) => {
      const sum = (probs, upTo) => probs.slice(0, upTo).reduce((total, prob) => total + prob, 0);
      const y = (probs, upTo) => (height * (1 - sum(probs, upTo))).toFixed(1);
      const top = run.map(([at, probs]) => `${at.toFixed(1)} ${y(probs, index + 1)}`);
      const bottom = run.map(([at, probs]) => `${at.toFixed(1)} ${y(probs, index)}`).reverse();
      paths[index] += `M${top.join("L")}L${bottom.join("L")}Z`;
    });
    run = [];
  };
  for (const [time, probs] of points) probs ? run.push([x(time), probs]) : flush();
  flush();
  return paths;
}
function ticks(duration, width) {
  const steps = [0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400];
  const step = steps.find((candidate) => (duration / candidate) * 56 <= width) || 28800;
  const times = [];
  for (let time = 0; time <= duration; time += step) times.push(time);
  return times.map((time) => [time, step < 1 ? exact(time) : clock(time)]);
}

function drawCurve(file, width) {
  const duration = Math.max(file.duration_s, 0.1), x = (time) => (time / duration) * width, body = HEIGHT - BAND - AXIS;
  const parts = shares(file).filter(([, share]) => share > 0).map(([label, share]) => `${label} ${percent(share)}`);
  const svg = draw("svg", {class: "curve", viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT, role: "img",
    "aria-label": `Timeline of ${file.name}: ${parts.join(", ") || "no utterance"}`});
  svg.append(draw("rect", {class: "ground", x: 0, y: 0, width, height: body + BAND}));
  const paths = areas(curvePoints(file.curve), x, body);
  emotions.forEach((emotion, index) => svg.append(draw("path", {class: emotion, d: paths[index]})));
  svg.append(draw("line", {class: "rule", x1: 0, x2: width, y1: body / 2, y2: body / 2, "stroke-dasharray": "2 4"}));
  for (const [start, end, index, ...probs] of file.utterances) {
    const label = labels[index], left = x(start), wide = Math.max(1.5, x(end) - left);
    const says = `${exact(start)} to ${exact(end)}: ${label}` + (probs.length ? ` (${emotions.map((name, at) => `${name} ${percent(probs[at])}`).join(", ")})` : "");
    svg.append(draw("rect", {class: `${label} edge`, x: left, y: body, width: wide, height: BAND}, draw("title", {}, says)));
    const text = wide > 8 * label.length ? label : wide > 13 ? label[0].toUpperCase() : "";
    if (text) svg.append(draw("text", {class: `letter on-${label}`, x: left + wide / 2, y: body + 14, "pointer-events": "none"}, text));
  }
  for (const [time, text] of ticks(duration, width)) {
    const at = x(time), anchor = at < 12 ? "start" : at > width - 16 ? "end" : "middle";
    svg.append(draw("line", {class: "rule", x1: at, x2: at, y1: body + BAND, y2: body + BAND + 4}));
    svg.append(draw("text", {x: at, y: HEIGHT - 2, "text-anchor": anchor}, text));
  }
  return svg;
}

let playing = null;
function player(file, holder) {
  if (!file.url) return [make("p", {class: "soft"}, "This recording is not there any more.")];
  const audio = make("audio", {controls: "", preload: "none", "aria-label": `Play ${file.name}`});
  audio.src = file.url;
  audio.addEventListener("play", () => { if (playing && playing !== audio) playing.pause(); playing = audio; });
  const move = () => holder.dispatchEvent(new CustomEvent("moved", {detail: audio.currentTime}));
  audio.addEventListener("timeupdate", move);
  audio.addEventListener("seeked", move);
  audio.addEventListener("error", () => {
    const link = make("a", {href: file.url}, "Open the file");
    audio.replaceWith(make("p", {class: "soft"}, "The browser cannot play this recording here. ", file.url.startsWith("data:") ? "" : link));
  }, {once: true});
  return [audio];
}
function seek(audio, time, play) {
  if (!audio) return;
  const go = () => { audio.currentTime = time; };
  if (audio.readyState > 0) go();
  else { audio.addEventListener("loadedmetadata", go, {once: true}); audio.preload = "metadata"; audio.load(); }
  if (play) audio.play().catch(() => {});
}
function utteranceTable(file, card) {
  const details = make("details", {}, make("summary", {}, count(file.utterances.length, "utterance")));
  details.addEventListener("toggle", () => {
    if (details.childElementCount > 1) return;
    const names = ["", "label", "start", "end", ...emotions];
    const table = make("table", {}, make("thead", {}, make("tr", {}, ...names.map((name) => make("th", {scope: "col"}, name)))));
    const body = make("tbody");
    for (const [start, end, index, ...probs] of file.utterances) {
      const button = make("button", {type: "button", "aria-label": `Play from ${exact(start)}`}, "▶");
      button.addEventListener("click", () => seek(card.querySelector("audio"), start, true));
      body.append(make("tr", {}, make("td", {}, button), make("td", {}, labels[index]),
        ...[exact(start), exact(end), ...probs.map(percent)].map((text) => make("td", {class: "num"}, text))));
    }
    table.append(body);
    details.append(make("div", {class: "scroll"}, table));
  });
  return details;
}
function fill(card, file) {
  const holder = make("div");
  card.append(holder, ...player(file, holder));
  let line = null, width = 0;
  const redraw = () => {
    const now = Math.max(200, Math.round(holder.clientWidth));
    if (now === width) return;
    width = now;
    const svg = drawCurve(file, width);
    line = draw("line", {class: "now", y1: 0, y2: HEIGHT - AXIS, x1: -9, x2: -9});
    svg.append(line);
    svg.addEventListener("click", (event) => {
      const box = svg.getBoundingClientRect();
      seek(card.querySelector("audio"), ((event.clientX - box.left) / box.width) * file.duration_s, true);
    });
    holder.replaceChildren(svg);
  };
  redraw();
  new ResizeObserver(redraw).observe(holder);
  holder.addEventListener("moved", (event) => {
    const at = (event.detail / Math.max(file.duration_s, 0.1)) * width;
    line.setAttribute("x1", at);
    line.setAttribute("x2", at);
  });
  card.append(...bar(file).slice(1));
  const rated = derived(file);
  if (rated) card.append(rated);
  for (const warning of file.warnings) card.append(make("p", {class: "bad"}, warning));
  if (file.problem) card.append(make("p", {class: "bad"}, file.problem));
  if (file.utterances.length) card.append(utteranceTable(file, card));
}
const seen = new IntersectionObserver((entries) => {
  for (const {isIntersecting, target} of entries) if (isIntersecting) fillOnce(target);
}, {rootMargin: "600px"});
function fillOnce(card) {
  if (card.childElementCount > 1) return; // the first is its head
  seen.unobserve(card);
  fill(card, card.file);
}
// Cards that are out of view have no curve yet: draw them before they are printed.
addEventListener("beforeprint", () => [...byId("list").children].forEach(fillOnce));
function fileCard(file) {
  const card = make("article", {class: "card"});
  const about = [file.speaker, spoken(file.duration_s), `speech ${speechOf(file)}`].filter(Boolean).join(" · ");
  card.append(make("div", {class: "head"}, make("h3", {}, file.name), make("span", {class: "num"}, about)));
  card.file = file;
  seen.observe(card);
  return card;
}

const readable = data.files.filter((file) => file.duration_s > 0), failed = data.files.filter((file) => file.problem);
let shown = 0, chosen = readable;
function choose() {
  const wanted = byId("wanted").value.trim().toLowerCase(), of = byId("of").value, mostly = byId("mostly").value;
  chosen = readable.filter((file) => (!wanted || file.name.toLowerCase().includes(wanted)) && (!of || file.speaker === of) && (!mostly || most(file) === mostly));
  const order = byId("order").value;
  const by = order === "long" ? (file) => file.duration_s : (file) => file.probs[order] || 0;
  if (order) chosen.sort((one, two) => by(two) - by(one));
  shown = 0;
  byId("list").replaceChildren();
  more();
}
function most(file) {
  const best = labels.reduce((one, two) => (file.seconds[two] > file.seconds[one] ? two : one));
  return file.seconds[best] > 0 ? best : "";
}
function more() {
  byId("list").append(...chosen.slice(shown, shown + PAGE).map(fileCard));
  shown = Math.min(chosen.length, shown + PAGE);
  byId("more").hidden = shown === chosen.length;
  byId("found").textContent = readable.length > 1 && chosen.length < readable.length || shown < chosen.length ? `${shown} of ${count(chosen.length, "recording")} shown` : "";
}

const made = new Date(data.made);
byId("about").textContent = [count(data.files.length, "recording"), spoken(data.total.duration_s), ...data.models, `mmtl ${data.version}`, made.toLocaleString([], {dateStyle: "medium", timeStyle: "short"})].join(" · ");
const overview = make("div", {class: "card"}, facts([
  ["recordings", data.files.length.toLocaleString("en")], ["duration", spoken(data.total.duration_s)], ["speech", speechOf(data.total)],
  ["utterances", data.total.utterances.toLocaleString("en")], ...(failed.length ? [["not recognised", failed.length.toLocaleString("en")]] : [])]), ...bar(data.total));
const rated = derived(data.total);
if (rated) overview.append(rated);
byId("total").append(overview);
if (failed.length) {
  byId("problems").hidden = false;
  byId("problems").querySelector("ul").append(...failed.map((file) => make("li", {}, make("strong", {}, file.name), file.problem)));
}
if (data.speakers.length) {
  byId("speakers").hidden = false;
  byId("speakers").querySelector(".cards").append(...data.speakers.map((speaker) => {
    const card = make("article", {class: "card"}, make("h3", {}, speaker.name), facts([
      ["recordings", speaker.recordings.toLocaleString("en")], ["duration", spoken(speaker.duration_s)], ["speech", speechOf(speaker)]]), ...bar(speaker));
    const about = derived(speaker);
    if (about) card.append(about);
    return card;
  }));
}
const option = (value, text) => make("option", {value}, text);
byId("of").append(option("", "everyone"), ...data.speakers.map((speaker) => option(speaker.name, speaker.name)));
byId("of").parentElement.hidden = !data.speakers.length;
byId("mostly").append(option("", "anything"), ...labels.map((label) => option(label, label)));
byId("order").append(...emotions.map((emotion) => option(emotion, `most ${emotion} first`)));
byId("filter").hidden = readable.length < 4;
byId("filter").addEventListener("input", choose);
byId("filter").addEventListener("submit", (event) => event.preventDefault());
choose();
