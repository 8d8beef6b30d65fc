"""From a trained checkpoint to what runs on a device, checked on the way."""

import edge  # noqa: F401 - before ONNX Runtime, whose telemetry it turns off
from export.bundling import export_bundle
from export.parity import Parity

__all__ = ["Parity", "export_bundle"]
