// Runs on the browser's audio thread: gathers samples and passes them on as 16-bit integers.
const PIECE_S = 0.08;

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.size = Math.round(PIECE_S * sampleRate);
    this.begin();
  }

  begin() {
    this.piece = new Int16Array(this.size);
    this.filled = 0;
    this.power = 0;
  }

  process(inputs) {
    for (const sample of inputs[0][0] ?? []) {
      const limited = Math.max(-1, Math.min(1, sample));
      this.power += limited * limited;
      this.piece[this.filled++] = Math.round(limited * 32767);
      if (this.filled === this.size) {
        const piece = this.piece.buffer;
        this.port.postMessage({ piece, power: this.power / this.size }, [piece]);
        this.begin();
      }
    }
    return true;
  }
}

registerProcessor("capture", Capture);
