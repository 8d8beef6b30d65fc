// Sound of this browser to a recogniser of its own: the microphone, or a file.

const MOST_WAITING_S = 2; // of sound that the connection has not taken; more is lost
const PIECE_S = 0.5;
const LARGEST_PIECE = 200000; // bytes
const LARGEST_FILE = 300e6;
const RETRY_MS = 1000;
const RETRY_AFTER_ERROR_MS = 5000;

export function socket(path) {
  const url = new URL(path, location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  url.hash = "";
  return new WebSocket(url);
}

// One recogniser on the server: sends its header, then sound; passes its events on.
class Uplink {
  constructor({ token, header, event, closed }) {
    this.socket = socket("stream");
    this.ready = new Promise((resolve, reject) => {
      this.socket.onopen = () => {
        if (token) this.socket.send(JSON.stringify({ token }));
        this.socket.send(JSON.stringify(header));
        resolve();
      };
      this.socket.onerror = () => reject(new Error("the server cannot be reached"));
    });
    this.failed = false;
    this.socket.onmessage = ({ data }) => {
      const taken = JSON.parse(data);
      this.failed ||= taken.type === "error";
      event(taken);
    };
    this.socket.onclose = () => closed();
  }

  get open() {
    return this.socket.readyState === WebSocket.OPEN;
  }

  get waiting() {
    return this.socket.bufferedAmount;
  }

  send(data) {
    if (this.open) this.socket.send(data);
  }

  finish() {
    this.send(JSON.stringify({ end: true }));
  }

  close() {
    this.socket.onclose = null;
    this.socket.close();
  }
}

function header(rate, channels, profile) {
  return { rate: Math.round(rate), channels, ...(profile ? { profile } : {}) };
}

const REFUSALS = {
  NotAllowedError: "The browser was not permitted to use the microphone. Allow it in the address bar, then press Start.",
  NotFoundError: "This browser finds no microphone. Plug one in, then press Start.",
  NotReadableError: "The microphone does not open. Close other programs that use it, then press Start.",
};

export function whyNoMicrophone() {
  if (!window.isSecureContext) {
    return "A browser lends its microphone only to a page on localhost or over TLS. Start the server with --tls-cert and --tls-key, and open its https link.";
  }
  if (!navigator.mediaDevices?.getUserMedia) return "This browser has no access to microphones.";
  if (!window.AudioWorkletNode) return "This browser is too old: it has no AudioWorklet.";
  return "";
}

// Open the browser's microphone; `heard` takes its pieces, each 80 ms of 16-bit samples with their power.
export async function openMicrophone({ heard, lost }) {
  const reason = whyNoMicrophone();
  if (reason) throw new Error(reason);
  const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 };
  let media;
  try {
    media = await navigator.mediaDevices.getUserMedia({ audio: plain });
  } catch (error) {
    throw new Error(REFUSALS[error.name] ?? `The microphone does not open (${error.name}).`);
  }
  const [track] = media.getAudioTracks();
  track.onended = () => lost("The microphone was disconnected.");
  const context = new AudioContext();
  await context.audioWorklet.addModule("worklet.js");
  await context.resume();
  const node = new AudioWorkletNode(context, "capture", {
    numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit",
  });
  node.port.onmessage = ({ data }) => heard(data);
  context.createMediaStreamSource(media).connect(node);
  const close = () => {
    track.onended = null;
    track.stop();
    context.close();
  };
  return { name: track.label || "microphone of this browser", rate: context.sampleRate, context, node, close };
}

// The browser's microphone. A connection that breaks is opened again; the sound between is lost.
export class BrowserMicrophone {
  constructor({ token, profile, event, level, lost, began, ended }) {
    Object.assign(this, { token, profile, event, level, lost, began, ended });
    this.stopped = false;
  }

  async start() {
    this.input = await openMicrophone({ heard: (data) => this.heard(data), lost: (message) => this.fail(message) });
    if (this.stopped) {
      this.input.close();
      return;
    }
    this.name = this.input.name;
    this.connect();
  }

  connect() {
    if (this.stopped) return;
    this.began();
    this.uplink = new Uplink({
      token: this.token,
      header: header(this.input.rate, 1, this.profile),
      event: this.event,
      closed: () => setTimeout(() => this.connect(), this.uplink.failed ? RETRY_AFTER_ERROR_MS : RETRY_MS),
    });
    this.uplink.ready.catch(() => {});
  }

  heard({ piece, power }) {
    if (this.stopped || !this.uplink) return;
    this.level(power > 0 ? Math.max(-120, 10 * Math.log10(power)) : -120);
    const { rate } = this.input;
    if (!this.uplink.open || this.uplink.waiting > 2 * rate * MOST_WAITING_S) this.lost(piece.byteLength / 2 / rate);
    else this.uplink.send(piece);
  }

  fail(message) {
    if (this.stopped) return;
    this.stop();
    this.ended(message);
  }

  stop() {
    this.stopped = true;
    this.input?.close();
    if (this.uplink) {
      this.uplink.socket.onclose = () => {};
      this.uplink.finish();
    }
  }
}

// The sample rate that a WAV or FLAC file states, so that the browser does not resample it.
export function statedRate(bytes) {
  const view = new DataView(bytes);
  const text = (at, count) => String.fromCharCode(...new Uint8Array(bytes, at, count));
  if (bytes.byteLength < 44) return null;
  if (text(0, 4) === "fLaC") return (view.getUint16(18) << 4) | (view.getUint8(20) >> 4);
  if (text(0, 4) !== "RIFF") return null;
  for (let at = 12; at + 16 < bytes.byteLength; at += 8 + view.getUint32(at + 4, true)) {
    if (text(at, 4) === "fmt ") return view.getUint32(at + 12, true);
  }
  return null;
}

async function decoded(file) {
  const bytes = await file.arrayBuffer();
  const stated = statedRate(bytes);
  const context = new OfflineAudioContext(1, 1, stated >= 8000 && stated <= 96000 ? stated : 48000);
  return context.decodeAudioData(bytes);
}

// Samples of all channels, interleaved, as 16-bit integers.
function interleaved(sound, from, to) {
  const channels = sound.numberOfChannels;
  const piece = new Int16Array((to - from) * channels);
  for (let channel = 0; channel < channels; channel++) {
    const samples = sound.getChannelData(channel);
    for (let i = from; i < to; i++) {
      piece[(i - from) * channels + channel] = Math.round(Math.max(-1, Math.min(1, samples[i])) * 32767);
    }
  }
  return piece.buffer;
}

// A file that the browser decodes, sent as fast as the server takes it.
export class BrowserFile {
  constructor(file, { token, profile, event, began, ended }) {
    Object.assign(this, { file, token, profile, event, began, ended });
    this.name = file.name;
    this.stopped = false;
  }

  async start() {
    if (this.file.size > LARGEST_FILE) throw new Error(`${this.name} is too large for a browser: use mmtl run on the device.`);
    let sound;
    try {
      sound = await decoded(this.file);
    } catch {
      throw new Error(`${this.name} holds no sound that this browser can decode.`);
    }
    if (this.stopped) return;
    this.began();
    this.uplink = new Uplink({
      token: this.token,
      header: header(sound.sampleRate, sound.numberOfChannels, this.profile),
      event: this.event,
      closed: () => this.ended(""),
    });
    this.sending = this.send(sound);
  }

  async send(sound) {
    try {
      await this.uplink.ready;
    } catch (error) {
      this.ended(error.message);
      return;
    }
    const frames = Math.min(Math.round(PIECE_S * sound.sampleRate), Math.floor(LARGEST_PIECE / 2 / sound.numberOfChannels));
    for (let at = 0; at < sound.length && !this.stopped; at += frames) {
      while (this.uplink.waiting > LARGEST_PIECE && this.uplink.open) await new Promise((next) => setTimeout(next, 20));
      this.uplink.send(interleaved(sound, at, Math.min(sound.length, at + frames)));
    }
    this.uplink.finish();
  }

  stop() {
    this.stopped = true;
  }
}
