"""Send a sound file to `mmtl serve --websocket PORT` and print the events that come back.

    pip install websockets soundfile
    python examples/websocket_client.py ws://127.0.0.1:8766 FILE

The client needs nothing of mmtl. Where the server asks for a token, send {"token": "..."} first.
"""

from __future__ import annotations

import json
import sys

import soundfile
from websockets.sync.client import connect

BLOCK_S = 0.1


def main(address: str, path: str) -> None:
    """Stream a file and print the type of each event, and the label of each utterance."""
    with soundfile.SoundFile(path) as file, connect(f"{address}/?rate={file.samplerate}") as server:
        for block in file.blocks(round(BLOCK_S * file.samplerate), dtype="int16", always_2d=True):
            server.send(block[:, 0].tobytes())  # mono, 16-bit little-endian
        server.send(json.dumps({"end": True}))
        for message in server:
            event = json.loads(message)
            if event["type"] in ("utterance", "summary", "error"):
                print(event["type"], event.get("label", event.get("message", "")))


if __name__ == "__main__":
    main(*sys.argv[1:])
