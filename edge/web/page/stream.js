// What is known of one stream of events: the device's, or the browser's own.

const MOST_LINES = 100000; // about six hours; the oldest go first
const MOST_WINDOWS = 60000;

export class Stream {
  constructor() {
    this.clear();
  }

  clear() {
    this.session = null;
    this.windows = [];
    this.utterances = [];
    this.losses = [];
    this.lines = [];
    this.heard = 0;
    this.level = null;
    this.speech = false;
    this.lost = 0;
    this.lossCount = 0;
    this.drift = null;
    this.device = null;
    this.warning = null;
    this.summary = null;
    this.error = "";
  }

  get last() {
    return this.windows.at(-1) ?? null;
  }

  get step() {
    return this.session?.step_s ?? 0.24;
  }

  take(event) {
    const restarted = event.type === "session" && this.summary;
    const went_back = event.type === "window" && this.last && event.end_s < this.last.end_s;
    if (restarted || went_back) {
      const session = this.session;
      this.clear();
      this.session = session;
    }
    this.lines.push(JSON.stringify(event));
    if (this.lines.length > MOST_LINES) this.lines.splice(1, MOST_LINES / 10);
    this[`take_${event.type}`]?.(event);
  }

  take_session(event) {
    this.session = event;
  }

  take_window(event) {
    this.windows.push(event);
    if (this.windows.length > MOST_WINDOWS) this.windows.splice(0, MOST_WINDOWS / 10);
    this.heard = Math.max(this.heard, event.end_s);
    this.level = event.level_dbfs;
    this.speech = event.speech;
  }

  take_speech(event) {
    this.speech = event.active;
  }

  take_utterance(event) {
    this.utterances.push(event);
  }

  take_overrun(event) {
    this.lose(event.start_s, event.lost_s);
  }

  lose(start, seconds) {
    this.losses.push({ start, seconds });
    this.lost += seconds;
    this.lossCount += 1;
  }

  take_device(event) {
    this.device = event.state === "lost" || event.state === "silent" ? event : null;
  }

  take_drift(event) {
    this.drift = event;
  }

  take_warning(event) {
    this.warning = event;
  }

  take_engine(event) {
    if (this.session) this.session = { ...this.session, provider: event.provider };
  }

  take_error(event) {
    this.error = event.message;
  }

  take_summary(event) {
    this.summary = event;
    this.heard = Math.max(this.heard, event.duration_s);
  }

  // The table that `mmtl run --csv` writes.
  csv() {
    const emotions = this.session?.emotions ?? [];
    const header = ["start_s", "end_s", "label", "speech", "level_dbfs", ...emotions, ...emotions.map((e) => `${e}_smoothed`)];
    const rows = this.windows.map((w) => [
      w.start_s, w.end_s, w.label, w.speech, w.level_dbfs ?? "",
      ...emotions.map((e) => w.probs[e] ?? ""), ...emotions.map((e) => w.smoothed[e] ?? ""),
    ]);
    return [header, ...rows].map((row) => `${row.join(",")}\n`).join("");
  }

  jsonl() {
    return this.lines.map((line) => `${line}\n`).join("");
  }
}

export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const end = String(s).padStart(2, "0");
  return h ? `${h}:${String(m).padStart(2, "0")}:${end}` : `${m}:${end}`;
}
