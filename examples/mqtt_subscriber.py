"""Print the utterances that `mmtl run mic --mqtt HOST/TOPIC` publishes.

    pip install paho-mqtt
    python examples/mqtt_subscriber.py HOST[:PORT] TOPIC

Ends with the summary of the stream.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion


def main(broker: str, topic: str) -> None:
    """Subscribe to a stream's events until its summary."""
    host, _, port = broker.partition(":")
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.on_connect = lambda client, *_: client.subscribe(
        [(f"{topic}/utterance", 0), (f"{topic}/summary", 0)]
    )
    client.on_subscribe = lambda *_: print("subscribed", flush=True)

    def on_message(client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
        event = json.loads(message.payload)
        if event["type"] == "utterance":
            print(f"{event['end_s']:.2f} s: {event['label']}", flush=True)
        if event["type"] == "summary":
            print(f"{event['duration_s']:.1f} s were heard", flush=True)
            client.disconnect()

    client.on_message = on_message
    client.connect(host, int(port or 1883))
    client.loop_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
