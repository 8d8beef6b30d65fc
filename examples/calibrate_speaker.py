"""Calibrate the recogniser to one person from labelled recordings, and use the profile.

    python examples/calibrate_speaker.py MANIFEST.csv PROFILE_FILE

MANIFEST.csv has the columns `path` and `emotion`, and at least two recordings of each emotion.
"""

from __future__ import annotations

import sys
from pathlib import Path

from calibrate import calibrate_speaker
from edge import Recognizer


def main(manifest: str, profile: str) -> None:
    """Fit, report the judgement on held-out recordings, and load the profile if it was adopted."""
    calibration = calibrate_speaker("me", manifest)
    print(f"{calibration.judgement.verdict}: {calibration.judgement.reason}")
    calibration.save(Path(profile))
    if calibration.adopted:
        recognizer = Recognizer.load(profile=profile)
        print(f"{profile} is ready, with a window every {recognizer.settings.step_ms} ms")


if __name__ == "__main__":
    main(*sys.argv[1:])
