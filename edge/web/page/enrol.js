// Enrolment: a dialog in which a person makes a profile with this browser's microphone.
import { openMicrophone, socket, whyNoMicrophone } from "./sound.js";
import { clock } from "./stream.js";

const $ = (id) => document.getElementById(`enrol-${id}`);
const PANELS = ["form", "session", "fitting", "result"];
const MOST_WAITING_S = 2; // of sound that the connection has not taken; more is lost
const SENTENCE_MS = 1500; // shortest time between two sentences for a screen reader
const TOKEN_REFUSED = 4401;
const FLOOR_DBFS = -60;
const KEYS = { " ": "space", Enter: "enter", Backspace: "backspace" };
const SHOWN = { space: "Space", enter: "Enter", backspace: "Backspace" };
const ENDED = {
  deleted: "The recordings are deleted.",
  kept: "The recordings are kept on the device.",
  none: "",
};

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function paragraphs(lines) {
  return lines.map((line) => element("p", { textContent: line }));
}

function row([name, ...values]) {
  const cells = values.map((text) => element("td", { textContent: text }));
  return element("tr", {}, element("th", { textContent: name, scope: "row" }), ...cells);
}

function table(title, columns, rows) {
  const heads = columns.map((text) => element("th", { textContent: text, scope: "col" }));
  const made = element("table", {}, element("thead", {}, element("tr", {}, ...heads)));
  if (title) made.prepend(element("caption", { textContent: title }));
  made.append(element("tbody", {}, ...rows.map(row)));
  return made;
}

export class Enrolment {
  // `token` gives the page's token, `use` switches to a profile, `opened` is called before the dialog opens.
  constructor({ token, use, opened }) {
    Object.assign(this, { token, use, opened });
    this.dialog = document.getElementById("enrolment");
    this.input = null;
    this.socket = null;
    this.view = null;
    this.awaited = ""; // what the next binary message is
    this.gap = 0;
    this.said = { text: "", at: -Infinity, timer: 0 };
    this.listen();
  }

  listen() {
    $("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.begin({});
    });
    $("kinds").addEventListener("change", () => this.showKind());
    $("name").addEventListener("input", () => this.ask(null));
    $("close").addEventListener("click", () => this.leave());
    $("keep").addEventListener("change", ({ target }) => this.request({ do: "keep", keep: target.checked }));
    $("keep-yes").addEventListener("click", () => this.finish(true));
    $("keep-no").addEventListener("click", () => this.finish(false));
    $("again").addEventListener("click", () => this.restart());
    $("use").addEventListener("click", () => {
      this.use(this.result);
      this.leave();
    });
    this.dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      this.leave();
    });
    this.dialog.addEventListener("close", () => this.disconnect());
    this.dialog.addEventListener("keydown", (event) => this.typed(event));
  }

  // What can be chosen; null: this device makes no profiles.
  offer(offered) {
    document.getElementById("enrol").hidden = !offered;
    if (!offered || this.offered) return;
    this.offered = offered;
    for (const input of document.querySelectorAll("[name=kind]")) {
      input.closest("label").hidden = !offered.kinds.includes(input.value);
      input.checked = input.value === offered.kinds[0];
    }
    Object.assign($("takes"), { min: offered.fewest_takes, max: offered.most_takes, value: offered.takes });
    const names = new Intl.DisplayNames([navigator.language, "en"], { type: "language" });
    const options = offered.languages.map((code) => element("option", { value: code, textContent: names.of(code) }));
    $("language").replaceChildren(...options);
    const own = navigator.language.slice(0, 2);
    $("language").value = offered.languages.includes(own) ? own : offered.language;
  }

  open() {
    this.opened();
    this.restart();
    this.dialog.showModal();
    $("name").focus();
    this.complain(whyNoMicrophone());
  }

  restart() {
    this.disconnect();
    this.complain("");
    this.ask(null);
    this.showKind();
    this.show("form");
  }

  leave() {
    const running = this.view && !$("session").hidden && this.view.done > 0;
    if (running && !confirm("Stop the session? Its recordings are deleted unless you keep them.")) return;
    this.dialog.close();
  }

  showKind() {
    $("labelled").hidden = this.kind !== "labelled";
  }

  get kind() {
    return document.querySelector("[name=kind]:checked").value;
  }

  show(panel) {
    for (const name of PANELS) $(name).hidden = name !== panel;
    this.dialog.scrollTo(0, 0);
  }

  complain(message) {
    $("error").textContent = message;
    $("error").hidden = !message;
  }

  // The connection, and the microphone

  async begin(answers) {
    this.complain("");
    this.ask(null);
    $("begin").disabled = true;
    try {
      this.input ??= await openMicrophone({
        heard: (data) => this.heard(data),
        lost: (message) => this.fail(message),
      });
      if (!this.dialog.open) {
        this.disconnect();
        return;
      }
      await this.connect();
    } catch (error) {
      this.fail(error.message);
      return;
    } finally {
      $("begin").disabled = false;
    }
    this.request({
      do: "begin", name: $("name").value.trim(), kind: this.kind, rate: Math.round(this.input.rate),
      agreed: $("agreed").checked, takes: Number($("takes").value), language: $("language").value,
      keep: $("kept").checked, replace: Boolean(this.replaces), ...answers,
    });
  }

  connect() {
    if (this.socket) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const opened = socket("enrol");
      opened.binaryType = "arraybuffer";
      opened.onopen = () => {
        opened.send(JSON.stringify({ token: this.token() }));
        this.socket = opened;
        resolve();
      };
      opened.onmessage = ({ data }) => this.take(data);
      opened.onclose = ({ code, reason }) => {
        if (!this.socket) reject(new Error("The device cannot be reached."));
        else if (this.socket === opened) this.closed(code, reason);
      };
    });
  }

  closed(code, reason) {
    this.socket = null;
    if (!$("result").hidden && !this.asked) return;
    const token = code === TOKEN_REFUSED ? "The token is missing or wrong: open the page by its link again." : "";
    const busy = reason.startsWith("too many") ? "Others are being enrolled: try again later." : "";
    const failed = reason === "the device failed" ? "The device failed: its log says why. " : "";
    this.fail(token || busy || failed + "The connection has ended, and with it the session. Recordings that were not to be kept are deleted.");
  }

  // Leave the session; the device serves few at a time.
  hangUp() {
    const open = this.socket;
    this.socket = null;
    open?.close();
  }

  disconnect() {
    this.hangUp();
    this.view = null;
    this.replaces = false;
    this.stopListening();
    this.stopPlaying();
    clearInterval(this.timer);
  }

  stopListening() {
    this.input?.close();
    this.input = null;
    this.gap = 0;
  }

  fail(message) {
    this.disconnect();
    this.show("form");
    this.complain(message);
  }

  request(message) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  heard({ piece }) {
    if (!this.input || !this.view || this.socket?.readyState !== WebSocket.OPEN) return;
    const { rate } = this.input;
    if (this.socket.bufferedAmount > 2 * rate * MOST_WAITING_S) {
      this.gap += piece.byteLength / 2 / rate;
      return;
    }
    if (this.gap) this.request({ do: "lost", seconds: this.gap });
    this.gap = 0;
    this.socket.send(piece);
  }

  // What the device says

  take(data) {
    if (data instanceof ArrayBuffer) {
      if (this.awaited === "sound") this.play(data);
      else this.draw(data);
      return;
    }
    const message = JSON.parse(data);
    this.awaited = message.page;
    this[`take_${message.page}`]?.(message);
  }

  take_refused({ message }) {
    if (!this.view) this.stopListening();
    this.complain(message);
  }

  take_exists({ name }) {
    this.ask(`There is a profile ${name} already. Replace it, and delete recordings that were kept with it?`, {
      "Replace it": () => {
        this.replaces = true;
        this.begin({});
      },
      "Choose another name": () => this.rename(),
    });
  }

  take_unfinished({ name, takes, resumable }) {
    const known = takes === null ? "that cannot be read" : `with ${takes} takes`;
    this.ask(`There is an unfinished session of ${name} ${known}.`, {
      ...(resumable ? { "Continue it": () => this.begin({ unfinished: "continue" }) } : {}),
      "Delete it and begin again": () => this.begin({ unfinished: "discard" }),
      "Choose another name": () => this.rename(),
    });
  }

  take_view(view) {
    const first = !this.view;
    this.view = view;
    if (first) {
      $("keep").checked = $("kept").checked;
      this.show("session");
    }
    $("heading").textContent = view.heading;
    $("lines").replaceChildren(...paragraphs(view.lines));
    $("sentence").textContent = view.sentence ? `“${view.sentence}”` : "";
    $("status").textContent = view.status.text;
    $("status").dataset.tone = view.status.tone;
    $("notice").textContent = view.notice;
    $("progress").textContent = view.progress;
    $("done").firstElementChild.style.width = `${(100 * view.done) / view.steps}%`;
    $("share").hidden = view.share === null;
    $("share").firstElementChild.style.width = `${100 * (view.share ?? 0)}%`;
    $("share").setAttribute("aria-valuenow", Math.round(100 * (view.share ?? 0)));
    this.showQuestion(view.question);
    this.showActions(view.actions);
    this.say([view.say, view.notice === "Playing ..." ? "" : view.notice].filter(Boolean).join(" "));
    if (view.notice !== "Playing ...") this.stopPlaying();
  }

  take_level({ level_dbfs, word }) {
    $("level").textContent = `${level_dbfs.toFixed(0)} dBFS, ${word}`;
    $("level-bar").style.width = `${Math.min(100, Math.max(0, 100 - (100 * level_dbfs) / FLOOR_DBFS))}%`;
    $("level-bar").className = word === "too loud" ? "loud" : "";
  }

  take_fitting({ message }) {
    this.stopListening();
    this.stopPlaying();
    this.show("fitting");
    const began = performance.now();
    const tell = () => {
      $("fitted").textContent = `${message} ... ${clock((performance.now() - began) / 1000)}`;
    };
    tell();
    clearInterval(this.timer);
    this.timer = setInterval(tell, 1000);
    this.say(message);
  }

  take_result(result) {
    this.conclude(result);
    this.result = result.name;
    $("outcome").textContent = result.usable ? `${result.name} is ready` : `${result.name} is not used`;
    $("reasons").replaceChildren(...paragraphs([result.verdict, ...result.lines]));
    const scores = result.table ? [table("", result.table.columns, result.table.rows)] : [];
    const confusions = result.confusions.map(({ title, emotions, rows }) =>
      table(title, ["said as", ...emotions], rows.map((counts, index) => [emotions[index], ...counts])));
    $("tables").replaceChildren(...scores, ...confusions);
    $("use").hidden = !result.usable;
    $("outcome").focus();
    this.say(`${$("outcome").textContent}. ${result.verdict}`);
  }

  take_failed(failure) {
    this.conclude(failure);
    $("outcome").textContent = "No profile was made";
    $("reasons").replaceChildren(...paragraphs([failure.message]));
    $("tables").replaceChildren();
    $("use").hidden = true;
    $("outcome").focus();
    this.say(failure.message);
  }

  take_ended({ recordings }) {
    this.tellRecordings(recordings, "");
    this.say(ENDED[recordings]);
    this.hangUp();
  }

  take_over() {
    this.hangUp();
  }

  conclude({ recordings, question }) {
    clearInterval(this.timer);
    this.view = null;
    this.complain("");
    this.stopListening();
    $("picture").hidden = true;
    this.show("result");
    this.tellRecordings(recordings, question);
  }

  tellRecordings(recordings, question) {
    this.asked = question;
    $("recordings").textContent = question || ENDED[recordings];
    for (const id of ["keep-yes", "keep-no"]) $(id).hidden = !question;
    $("again").hidden = Boolean(question);
  }

  finish(keep) {
    this.request({ do: "keep", keep });
    this.request({ do: "stop" });
    $("again").hidden = false;
    $("again").focus();
  }

  rename() {
    this.ask(null);
    this.replaces = false;
    $("name").select();
  }

  // Ask a question before the session; null takes it back.
  ask(question, answers = {}) {
    $("question").hidden = !question;
    $("begin").hidden = Boolean(question);
    if (!question) return;
    this.stopListening();
    $("asked").textContent = question;
    const buttons = Object.entries(answers).map(([text, answer]) => {
      const button = element("button", { type: "button", textContent: text });
      button.addEventListener("click", answer);
      return button;
    });
    $("answers").replaceChildren(...buttons);
    buttons.at(-1).focus();
    this.say(question);
  }

  showQuestion(question) {
    $("rating").hidden = !question;
    if (!question) {
      this.rated = "";
      return;
    }
    if (this.rated === question.text) return;
    this.rated = question.text;
    const answers = question.words.map((word, index) => {
      const picture = element("pre", { textContent: question.pictures[index] });
      picture.setAttribute("aria-hidden", "true");
      const button = element("button", { type: "button" }, picture, element("span", { textContent: `${index + 1} ${word}` }));
      button.addEventListener("click", () => this.press(String(index + 1)));
      return element("li", {}, button);
    });
    const asked = element("p", { id: "enrol-rated", textContent: `${question.number} of ${question.of}: ${question.text}` });
    $("rating").setAttribute("aria-labelledby", "enrol-rated");
    $("rating").replaceChildren(asked, element("ol", {}, ...answers), element("p", { className: "small", textContent: question.if_skipped }));
    answers[0].firstElementChild.focus();
  }

  showActions(actions) {
    const key = JSON.stringify(actions);
    if (this.shown === key && $("actions").childElementCount) return;
    this.shown = key;
    const rating = !$("rating").hidden;
    const buttons = actions.map((action, index) => {
      const shown = SHOWN[action.key] ?? action.key;
      const button = element("button", { type: "button", className: index || rating ? "" : "primary" },
        `${action.does[0].toUpperCase()}${action.does.slice(1)}`,
        element("kbd", { textContent: shown, ariaHidden: "true" }));
      button.setAttribute("aria-keyshortcuts", shown);
      button.dataset.key = action.key;
      button.addEventListener("click", () => this.press(action.key));
      return button;
    });
    $("actions").replaceChildren(...buttons);
    if (!rating) buttons[0]?.focus();
  }

  press(key) {
    this.stopPlaying();
    this.complain("");
    this.request({ do: "press", key });
  }

  typed(event) {
    if ($("session").hidden || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.target.matches("input, select, textarea")) return;
    const key = KEYS[event.key] ?? event.key.toLowerCase();
    if (event.target.matches("button") && (key === "space" || key === "enter")) return;
    const known = this.view?.actions.some((action) => action.key === key);
    if (!known && !(this.view?.question && "12345".includes(key))) return;
    event.preventDefault();
    this.press(key);
  }

  // A sentence for a screen reader: at most one each SENTENCE_MS, the newest wins.
  say(text) {
    if (text === this.said.text) return;
    this.said.text = text;
    clearTimeout(this.said.timer);
    const speak = () => {
      this.said.at = performance.now();
      $("said").textContent = this.said.text;
    };
    this.said.timer = setTimeout(speak, Math.max(0, this.said.at + SENTENCE_MS - performance.now()));
  }

  async play(data) {
    this.stopPlaying();
    const context = this.input?.context;
    if (!context) return;
    const playing = context.createBufferSource();
    this.playing = playing;
    playing.buffer = await context.decodeAudioData(data);
    if (this.playing !== playing) return;
    playing.connect(context.destination);
    playing.onended = () => {
      if (this.playing === playing) this.stopPlaying();
    };
    playing.start();
    $("actions").dataset.playing = "yes";
  }

  stopPlaying() {
    const { playing } = this;
    this.playing = null;
    delete $("actions").dataset.playing;
    if (playing?.buffer) {
      playing.onended = null;
      playing.stop();
      playing.disconnect();
    }
  }

  async draw(data) {
    const picture = await createImageBitmap(new Blob([data], { type: "image/png" }));
    const canvas = $("picture");
    Object.assign(canvas, { width: picture.width, height: picture.height });
    canvas.getContext("2d").drawImage(picture, 0, 0);
    canvas.hidden = false;
  }
}
