// The two pictures: the timeline of the emotions, and the plane of valence and arousal.
import { clock } from "./stream.js";

export const LONGEST_S = 600;
export const SHORTEST_S = 15;
const TICKS_S = [5, 10, 15, 30, 60, 120, 300];

export function colours() {
  const style = getComputedStyle(document.documentElement);
  return new Proxy({}, { get: (_, name) => style.getPropertyValue(`--${name}`).trim() });
}

// Fit the canvas to its box and return a context in CSS pixels.
function prepared(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const { width, height } = canvas.getBoundingClientRect();
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

export function rem() {
  return parseFloat(getComputedStyle(document.documentElement).fontSize);
}

// What of the stream is visible: `span` seconds up to `end`, or up to now while it follows.
export class View {
  constructor() {
    this.span = 60;
    this.end = 0;
    this.live = true;
  }

  right(stream) {
    return this.live ? Math.max(stream.heard, this.span) : this.end;
  }

  zoom(factor, stream, anchor = 1) {
    const right = this.right(stream);
    const at = right - this.span * (1 - anchor);
    this.span = Math.min(LONGEST_S, Math.max(SHORTEST_S, this.span * factor));
    if (!this.live) this.moveTo(at + this.span * (1 - anchor), stream);
  }

  move(seconds, stream) {
    this.moveTo(this.right(stream) + seconds, stream);
  }

  moveTo(end, stream) {
    const newest = Math.max(stream.heard, this.span);
    const oldest = Math.min(newest, (stream.windows[0]?.end_s ?? 0) + this.span * 0.5);
    this.live = end >= newest;
    this.end = Math.max(oldest, Math.min(end, newest));
  }
}

// The windows that end between two times; the list is in their order.
function between(windows, from, to) {
  const first = (time) => {
    let [low, high] = [0, windows.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (windows[middle].end_s < time) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  return windows.slice(first(from), first(to) + 1);
}

export function drawTimeline(canvas, stream, view, pointed) {
  const { context, width, height } = prepared(canvas);
  paintTimeline(context, width, height, stream, view, pointed, rem());
}

export function paintTimeline(context, width, height, stream, view, pointed, unit) {
  const colour = colours();
  const [axis, strip, gap] = [unit * 1.3, unit * 1.5, unit * 0.3];
  const right = view.right(stream);
  const left = right - view.span;
  const x = (time) => ((time - left) / view.span) * width;
  const top = unit * 0.2;
  const area = height - axis - strip - gap - top;
  const emotions = stream.session?.emotions ?? [];

  context.font = `${0.75 * unit}px system-ui, sans-serif`;
  context.textBaseline = "alphabetic";
  context.fillStyle = colour.track;
  context.fillRect(0, top, width, area);
  context.fillRect(0, top + area + gap, width, strip);

  const step = stream.step;
  const shown = between(stream.windows, left, right + step).filter((w) => w.speech);
  for (const window of shown) {
    const [from, to] = [Math.floor(x(window.end_s - step)), Math.ceil(x(window.end_s))];
    context.globalAlpha = window.label in window.smoothed ? 1 : 0.4;
    let y = top + area;
    for (const emotion of emotions) {
      const tall = (window.smoothed[emotion] ?? 0) * area;
      context.fillStyle = colour[emotion];
      context.fillRect(from, y - tall, to - from, tall);
      y -= tall;
    }
  }
  context.globalAlpha = 1;
  paintRuns(context, runs(shown, step), x, top + area + gap, strip, unit, colour);

  context.fillStyle = colour.bad;
  for (const loss of stream.losses) {
    const from = x(loss.start);
    if (from < width) context.fillRect(from, top, Math.max(2, x(loss.start + loss.seconds) - from), unit * 0.35);
  }

  context.fillStyle = colour.soft;
  const tick = TICKS_S.find((seconds) => (seconds / view.span) * width > 4.5 * unit) ?? 300;
  for (let time = Math.max(0, Math.ceil(left / tick) * tick); time <= right; time += tick) {
    const at = x(time);
    const text = clock(time);
    const half = context.measureText(text).width / 2;
    context.fillRect(at, height - axis + 2, 1, unit * 0.25);
    if (at - half > 0 && at + half < width) context.fillText(text, at - half, height - unit * 0.12);
  }
  if (pointed != null) {
    context.fillStyle = colour.ink;
    context.fillRect(x(pointed), top, 1, area + gap + strip);
  }
}

// Neighbouring windows of one label as one run.
function runs(windows, step) {
  const found = [];
  for (const window of windows) {
    const last = found.at(-1);
    if (last && last.label === window.label && window.end_s - last.to < 1.5 * step) last.to = window.end_s;
    else found.push({ label: window.label, from: window.end_s - step, to: window.end_s });
  }
  return found;
}

function paintRuns(context, found, x, y, tall, unit, colour) {
  for (const run of found) {
    const [from, to] = [Math.floor(x(run.from)), Math.ceil(x(run.to))];
    context.fillStyle = colour[run.label] || colour.unsure;
    context.fillRect(from, y, Math.max(1, to - from), tall);
    if (context.measureText(run.label).width + unit * 0.6 < to - Math.max(0, from)) {
      context.fillStyle = run.label === "unsure" ? colour.ink : colour["on-strip"];
      context.fillText(run.label, Math.max(0, from) + unit * 0.3, y + tall * 0.68);
    }
  }
}

// The window under a place of the timeline.
export function windowAt(stream, view, share) {
  const time = view.right(stream) - view.span * (1 - share);
  const [found] = between(stream.windows, time, time);
  return found && found.end_s - time < 1.5 * stream.step ? found : null;
}

// The derived place of a window: (valence, arousal) in [1, 5].
export function placeOf(window, places) {
  const sum = [0, 0];
  for (const [emotion, prob] of Object.entries(window.smoothed)) {
    sum[0] += prob * (places[emotion]?.[0] ?? 3);
    sum[1] += prob * (places[emotion]?.[1] ?? 3);
  }
  return sum;
}

export function drawPlane(canvas, stream, places) {
  const { context, width, height } = prepared(canvas);
  const colour = colours();
  const unit = rem();
  const edge = unit * 1.5;
  const size = Math.min(width, height) - 2 * edge;
  const x = (valence) => edge + ((valence - 1) / 4) * size;
  const y = (arousal) => edge + size - ((arousal - 1) / 4) * size;
  context.font = `${0.75 * unit}px system-ui, sans-serif`;
  context.fillStyle = colour.track;
  context.beginPath();
  context.roundRect(edge, edge, size, size, unit * 0.5);
  context.fill();
  context.fillStyle = colour.line;
  context.fillRect(edge, y(3), size, 1);
  context.fillRect(x(3), edge, 1, size);
  context.fillStyle = colour.soft;
  const middle = (text, at, line) => context.fillText(text, at - context.measureText(text).width / 2, line);
  middle("unpleasant", edge + unit * 2.2, edge + size + unit);
  middle("pleasant", edge + size - unit * 1.8, edge + size + unit);
  middle("excited", x(3), edge - unit * 0.4);
  middle("calm", x(3), edge + size + unit);
  for (const [emotion, place] of Object.entries(places)) {
    context.fillStyle = colour[emotion];
    context.beginPath();
    context.arc(x(place[0]), y(place[1]), unit * 0.28, 0, 2 * Math.PI);
    context.fill();
    context.fillStyle = colour.soft;
    const half = context.measureText(emotion).width / 2;
    middle(emotion, Math.min(x(place[0]), edge + size - half - unit * 0.3), y(place[1]) + (place[1] > 3 ? -0.55 : 1.15) * unit);
  }
  const recent = stream.windows.slice(-60).filter((w) => w.speech && stream.heard - w.end_s < 10);
  recent.forEach((window, index) => {
    const [valence, arousal] = placeOf(window, places);
    const newest = index === recent.length - 1;
    context.globalAlpha = newest ? 1 : (0.35 * (index + 1)) / recent.length;
    context.fillStyle = colour.accent;
    context.beginPath();
    context.arc(x(valence), y(arousal), unit * (newest ? 0.55 : 0.3), 0, 2 * Math.PI);
    context.fill();
    if (newest) {
      context.lineWidth = unit * 0.16;
      context.strokeStyle = colour.card;
      context.stroke();
    }
  });
  context.globalAlpha = 1;
  return recent.at(-1) ?? null;
}
