// The page: connects to the device's stream, or sends its own sound, and shows what comes back.
import { View, colours, drawPlane, drawTimeline, paintTimeline, placeOf, windowAt } from "./draw.js";
import { Enrolment } from "./enrol.js";
import { BrowserFile, BrowserMicrophone, socket, whyNoMicrophone } from "./sound.js";
import { Stream, clock } from "./stream.js";

const $ = (id) => document.getElementById(id);
const RETRY_MS = [500, 1000, 2000, 5000];
const TOKEN_REFUSED = 4401;
const SENTENCE_MS = 3000; // shortest time between two sentences for a screen reader
const LATE_MS = 2000;
const LOUD_DBFS = -6;

const device = new Stream();
const own = new Stream();
const view = new View();
const profiles = { device: "", own: "" };
let source = "device";
let token = new URLSearchParams(location.hash.slice(1)).get("token") ?? "";
let hello = { emotions: [], profiles: [], plane: {}, source: "", profile: null };
let status = { state: "off", profile: null, viewers: 0 };
let watch = null;
let attempts = 0;
let connected = false;
let sender = null; // of this browser's sound
let latest = null; // the sender whose events are shown, also after it was stopped
let senderState = "off";
let pointed = null;
let dirty = true;

const stream = () => (source === "device" ? device : own);
const state = () => (source === "device" ? status.state : senderState);

// The device's stream

function connect() {
  watch = socket("watch");
  watch.onopen = () => watch.send(JSON.stringify({ token }));
  watch.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (Array.isArray(message)) message.forEach((event) => device.take(event));
    else if (message.page) take(message);
    else device.take(message);
    show();
  };
  watch.onclose = ({ code }) => {
    connected = false;
    if (code === TOKEN_REFUSED) {
      askForToken();
    } else {
      setTimeout(connect, RETRY_MS[Math.min(attempts++, RETRY_MS.length - 1)]);
    }
    show();
  };
}

function take(message) {
  if (message.page === "hello") {
    connected = true;
    attempts = 0;
    hello = message;
    device.clear();
    $("ask").hidden = true;
    buildBars();
    listProfiles();
    enrolment.offer(hello.enrolment);
  } else if (message.page === "status") {
    const started = message.state === "starting" && status.state === "off";
    if (started) device.clear();
    status = message;
    profiles.device = message.profile ?? "";
    if (source === "device") $("profile").value = profiles.device;
  } else if (message.page === "profiles") {
    hello.profiles = message.profiles;
    listProfiles();
  } else if (message.page === "level") {
    device.heard = message.heard_s;
    device.level = message.level_dbfs;
  } else if (message.page === "refused") {
    notify(message.message);
  }
}

function request(message) {
  if (watch?.readyState === WebSocket.OPEN) watch.send(JSON.stringify(message));
}

function askForToken() {
  $("ask").hidden = false;
  $("token").focus();
  if (token) notify("The token is wrong.");
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  history.replaceState(null, "", `#token=${encodeURIComponent(token)}`);
  notify("");
  connect();
});

// This browser's sound

function send(make) {
  stopSending();
  notify("");
  own.clear();
  const mine = make({
    token,
    profile: profiles.own,
    began: () => {
      if (latest === mine) own.clear();
      own.name = mine.name;
    },
    event: (event) => {
      if (latest !== mine) return;
      own.take(event);
      if (event.type === "error") notify(event.message);
      show();
    },
    level: (dbfs) => {
      own.level = dbfs;
      show();
    },
    lost: (seconds) => own.lose(own.heard, seconds),
    ended: (message) => {
      if (sender === mine) {
        senderState = "off";
        sender = null;
      }
      if (message) notify(message);
      show();
    },
  });
  sender = latest = mine;
  senderState = "on";
  own.name = mine.name;
  mine.start().catch((error) => {
    mine.stop();
    if (sender === mine) {
      sender = null;
      senderState = "off";
    }
    notify(error.message);
    show();
  });
  show();
}

function stopSending() {
  sender?.stop();
  sender = null;
  senderState = "off";
}

function sendFile(file) {
  choose("file");
  send((options) => new BrowserFile(file, options));
}

// Controls

function choose(name) {
  source = name;
  for (const input of document.querySelectorAll("[name=source]")) input.checked = input.value === name;
  $("profile").value = name === "device" ? profiles.device : profiles.own;
  notify(name === "browser" ? whyNoMicrophone() : "");
  view.live = true;
  show();
}

$("sources").addEventListener("change", (event) => {
  stopSending();
  choose(event.target.value);
});

$("start").addEventListener("click", () => {
  notify("");
  const running = state() !== "off";
  if (source === "device") request({ do: running ? "stop" : "start" });
  else if (running) stopSending();
  else if (source === "browser") send((options) => new BrowserMicrophone(options));
  else $("file").click();
  show();
});

$("file").addEventListener("change", ({ target }) => {
  if (target.files.length) sendFile(target.files[0]);
  target.value = "";
});

$("profile").addEventListener("change", ({ target }) => useProfile(target.value));

function useProfile(name) {
  if (source === "device") {
    request({ do: "profile", name: name || null });
  } else {
    profiles.own = name;
    if (sender instanceof BrowserMicrophone) send((options) => new BrowserMicrophone(options));
  }
}

const enrolment = new Enrolment({
  token: () => token,
  opened: stopSending,
  use: (name) => {
    $("profile").value = name;
    useProfile(name);
  },
});
$("enrol").addEventListener("click", () => enrolment.open());

addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
addEventListener("dragleave", ({ relatedTarget }) => {
  if (!relatedTarget) document.body.classList.remove("dropping");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  const [file] = event.dataTransfer.files;
  if (file) sendFile(file);
  else notify("Drop a sound file: what was dropped is none.");
});

// The timeline

function moved(change) {
  change();
  $("live").setAttribute("aria-pressed", view.live);
  draw();
}

const KEYS = {
  ArrowLeft: () => view.move(-view.span / 4, stream()),
  ArrowRight: () => view.move(view.span / 4, stream()),
  "+": () => view.zoom(0.5, stream()),
  "=": () => view.zoom(0.5, stream()),
  "-": () => view.zoom(2, stream()),
  Home: () => view.moveTo(0, stream()),
  End: () => view.moveTo(Infinity, stream()),
};
for (const [id, key] of Object.entries({ earlier: "ArrowLeft", later: "ArrowRight", in: "+", out: "-", live: "End" })) {
  $(id).addEventListener("click", () => moved(KEYS[key]));
}
const canvas = $("timeline");
canvas.addEventListener("keydown", (event) => {
  if (!(event.key in KEYS) || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  moved(KEYS[event.key]);
});
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  const { width } = canvas.getBoundingClientRect();
  moved(() => {
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) view.move((event.deltaX / width) * view.span, stream());
    else view.zoom(Math.exp(event.deltaY / 400), stream(), event.offsetX / width);
  });
}, { passive: false });

const touching = new Map();
canvas.addEventListener("pointerdown", (event) => {
  touching.set(event.pointerId, event.offsetX);
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointermove", (event) => {
  const { width } = canvas.getBoundingClientRect();
  const before = touching.get(event.pointerId);
  if (before === undefined) {
    point(event.offsetX / width);
    return;
  }
  const others = [...touching].filter(([id]) => id !== event.pointerId).map(([, x]) => x);
  moved(() => {
    if (others.length) {
      const apart = Math.max(20, Math.abs(event.offsetX - others[0]));
      view.zoom(Math.max(20, Math.abs(before - others[0])) / apart, stream(), others[0] / width);
    } else {
      view.move(((before - event.offsetX) / width) * view.span, stream());
    }
  });
  touching.set(event.pointerId, event.offsetX);
});
for (const kind of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(kind, (event) => {
    touching.delete(event.pointerId);
    point(event.offsetX / canvas.getBoundingClientRect().width);
  });
}
canvas.addEventListener("pointerleave", () => point(null));

function point(share) {
  const found = share === null ? null : windowAt(stream(), view, share);
  pointed = found?.end_s ?? null;
  $("pointed").textContent = found ? described(found) : "\u00a0";
  draw();
}

function described(window) {
  const ranked = Object.entries(window.smoothed).sort(([, a], [, b]) => b - a);
  const shares = ranked.map(([emotion, p]) => `${emotion} ${amount(p)}`).join(", ");
  return `${clock(window.end_s)}: ${window.speech ? `${window.label} (${shares})` : "no speech"}`;
}

function amount(probability) {
  return stream().session?.temperature_fitted ? `${Math.round(100 * probability)} %` : probability.toFixed(2);
}

// Downloads

function save(name, type, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  link.download = `mmtl-${new Date().toISOString().slice(0, 19).replaceAll(":", "")}.${name}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

$("save-events").addEventListener("click", () => save("jsonl", "application/x-ndjson", stream().jsonl()));
$("save-csv").addEventListener("click", () => save("csv", "text/csv", stream().csv()));
$("save-png").addEventListener("click", () => {
  const [width, height, margin, unit] = [1600, 360, 24, 18];
  const picture = Object.assign(document.createElement("canvas"), { width: 2 * width, height: 2 * height });
  const context = picture.getContext("2d");
  context.scale(2, 2);
  context.fillStyle = colours().card;
  context.fillRect(0, 0, width, height);
  context.fillStyle = colours().ink;
  context.font = "600 18px system-ui, sans-serif";
  const { session } = stream();
  context.fillText(`${sourceName()} · ${session?.bundle ?? ""} · ${new Date().toLocaleString()}`, margin, margin + 12);
  context.translate(margin, margin + 28);
  paintTimeline(context, width - 2 * margin, height - 2 * margin - 28, stream(), view, null, unit);
  picture.toBlob((blob) => save("png", "image/png", blob));
});

// What is shown

function notify(message) {
  $("notice").textContent = message;
  $("notice").hidden = !message;
}

function option(value, text) {
  return Object.assign(document.createElement("option"), { value, textContent: text });
}

function listProfiles() {
  const first = option("", hello.profile ? `${hello.profile} (as started)` : "none");
  $("profile").replaceChildren(first, ...hello.profiles.map((name) => option(name, name)));
  $("profile").value = source === "device" ? profiles.device : profiles.own;
}

function buildBars() {
  $("bars").replaceChildren(...hello.emotions.map((emotion) => {
    const row = Object.assign(document.createElement("div"), { className: "bar" });
    row.dataset.emotion = emotion;
    const name = Object.assign(document.createElement("b"), { textContent: emotion });
    const track = Object.assign(document.createElement("span"), { className: "track" });
    track.setAttribute("role", "meter");
    track.setAttribute("aria-label", emotion);
    track.setAttribute("aria-valuemin", "0");
    track.setAttribute("aria-valuemax", "1");
    track.setAttribute("aria-valuenow", "0");
    const fill = document.createElement("i");
    fill.style.background = `var(--${emotion})`;
    track.append(fill);
    row.append(name, track, document.createElement("output"));
    return row;
  }));
}

function sourceName() {
  const names = { device: device.session?.source ?? hello.source, browser: own.name ?? "microphone", file: own.name ?? "file" };
  return names[source];
}

// The label that is shown, and the line below it.
function now() {
  const current = stream();
  const window = current.last;
  if (state() === "off" && !current.session) return ["–", source === "file" ? "Choose a file, or drop one anywhere." : "Press Start to listen."];
  if (current.device) return [current.device.state === "lost" ? "no microphone" : "no sound", current.device.reason || current.device.name];
  if (current.error && !window) return ["–", current.error];
  if (!window) return ["listening", "The first answer needs 1.5 s of sound."];
  if (current.summary) return ["ended", `After ${clock(current.summary.duration_s)} of sound.`];
  if (!current.speech) return ["no speech", "Listening."];
  return [window.label, window.label === "unsure" ? "No emotion is probable enough." : ""];
}

function show() {
  dirty = true;
}

function showControls() {
  const running = state() !== "off";
  const texts = { device: "Start", browser: "Start", file: "Choose a file" };
  $("start").textContent = state() === "stopping" ? "Stopping" : running ? "Stop" : texts[source];
  $("start").classList.toggle("stop", running);
  $("enrol").disabled = !connected;
  $("start").disabled = !connected || state() === "stopping";
  const pill = $("connection");
  pill.dataset.state = !connected ? "lost" : running ? "on" : "ready";
  pill.textContent = !connected ? (attempts ? "connection lost: trying again" : "connecting") : running ? "listening" : "ready";
  for (const id of ["save-events", "save-csv", "save-png"]) $(id).disabled = !stream().windows.length;
}

function showNow() {
  const [label, detail] = now();
  const current = stream();
  const window = current.last;
  $("label").textContent = label;
  $("label").dataset.emotion = label;
  $("detail").textContent = detail || current.warning?.message || "";
  const idle = !window || !current.speech || current.summary;
  $("bars").classList.toggle("idle", Boolean(idle));
  for (const row of $("bars").children) {
    const value = window?.smoothed[row.dataset.emotion] ?? 0;
    const [, track, output] = row.children;
    track.firstChild.style.width = `${100 * value}%`;
    track.setAttribute("aria-valuenow", value.toFixed(2));
    output.textContent = window ? amount(value) : "";
    row.classList.toggle("first", row.dataset.emotion === label);
  }
  showUtterances(current.utterances.slice(-4).reverse());
  announce(label);
}

function showUtterances(utterances) {
  $("utterances").replaceChildren(...utterances.map((utterance) => {
    const row = document.createElement("li");
    const dot = document.createElement("i");
    dot.style.background = `var(--${hello.emotions.includes(utterance.label) ? utterance.label : "unsure"})`;
    const label = Object.assign(document.createElement("b"), { textContent: utterance.label });
    const share = utterance.probs[utterance.label];
    row.append(dot, `${clock(utterance.start_s)} to ${clock(utterance.end_s)}`, label, share === undefined ? "" : amount(share));
    return row;
  }));
}

function fact(id, text, kind = "") {
  $(id).textContent = text;
  $(id).className = kind;
}

function showFacts() {
  const current = stream();
  const { last: window, session, level } = current;
  const known = Number.isFinite(level);
  $("level").textContent = known ? `${level.toFixed(0)} dBFS` : "–";
  $("level-bar").style.width = `${known ? Math.min(100, Math.max(0, 100 + (level / 60) * 100)) : 0}%`;
  $("level-bar").className = level > LOUD_DBFS ? "loud" : "";
  fact("speech", window ? (current.speech && !current.summary ? "yes" : "no") : "–");
  fact("lag", window ? `${Math.round(window.lag_ms)} ms` : "–", window && window.lag_ms > LATE_MS && source !== "file" ? "warn" : "");
  fact("lost", current.lossCount ? `${current.lost.toFixed(1)} s (${current.lossCount} ×)` : "none", current.lossCount ? "bad" : "");
  fact("drift", current.drift ? `${current.drift.what}: ${current.drift.advice}` : session?.profile ? "none" : "not watched: no profile", current.drift ? "warn" : "");
  fact("heard", clock(current.heard));
  fact("source-name", sourceName() || "–");
  fact("model", session ? `${session.bundle}, ${session.provider}` : "–");
  fact("viewers", connected ? String(status.viewers) : "–");
}

function draw() {
  drawTimeline(canvas, stream(), view, pointed);
  const newest = drawPlane($("plane"), stream(), hello.plane);
  if (newest) {
    const [valence, arousal] = placeOf(newest, hello.plane);
    $("plane").setAttribute("aria-label", `Derived valence ${valence.toFixed(1)}, arousal ${arousal.toFixed(1)}, each from 1 to 5.`);
  }
}

let spokenAt = -Infinity;
let spoken = "–";
function announce(label) {
  if (label === spoken || performance.now() - spokenAt < SENTENCE_MS) return;
  spokenAt = performance.now();
  spoken = label;
  $("speaker").textContent = label === "–" ? "" : `${label[0].toUpperCase()}${label.slice(1)}.`;
}

function tick() {
  if (dirty) {
    dirty = false;
    showControls();
    showNow();
    showFacts();
    draw();
  }
  requestAnimationFrame(tick);
}

new ResizeObserver(draw).observe(document.body);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
setInterval(show, 1000);
connect();
tick();
