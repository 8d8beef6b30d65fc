"""Options of every ONNX Runtime session of this program."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnxruntime


def session_options(threads: int = 1) -> onnxruntime.SessionOptions:
    """Return options for a session that shares the machine: no spinning threads, errors only on stderr.

    Args:
        threads: CPU threads of one operator, >= 1. Operators run one after another.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options
