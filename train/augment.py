"""Augmentation: level, microphone, noise, warping of frequency and time, and masks.

The first three act on the power spectra of one segment (NumPy), the others on normalised batches (torch).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from edge.arrays import Array
from edge.features.normaliser import DECIBEL


@dataclass(frozen=True)
class Augmentation:
    """Strength of each kind, chosen on validation speakers; 0 switches a kind off."""

    speeds: tuple[float, ...] = (0.9, 1.1)
    """Each clip is added at these playback speeds."""
    level_db: float = 2.0
    """Standard deviation of an error added to the tracked level."""
    settled: float = 0.5
    """Share of segments whose gain has settled at the clip's level, as in a long stream."""
    tilt_db: float = 1.5
    """Standard deviation of the slowest component of a random microphone response."""
    noise: float = 0.3
    """Share of segments with noise."""
    noise_snr_db: tuple[float, float] = (10.0, 35.0)
    warp: float = 0.08
    """Largest relative change of the frequency axis, and of the time axis."""
    masks: int = 1
    """Number of masked bands and of masked stretches, each of up to `mask_size` bins or frames."""
    mask_size: int = 20

    def scaled(self, strength: float) -> Augmentation:
        """Return every strength times `strength`; 0 leaves the segments unchanged."""
        return replace(
            self,
            speeds=self.speeds if strength > 0 else (),
            level_db=strength * self.level_db,
            settled=strength * self.settled,
            tilt_db=strength * self.tilt_db,
            noise=strength * self.noise,
            warp=strength * self.warp,
            mask_size=round(strength * self.mask_size),
        )


def microphone(power: Array, tilt_db: float, rng: np.random.Generator) -> Array:
    """Colour (T, F) power by a random smooth response of three cosines along frequency."""
    position = np.arange(power.shape[1]) / power.shape[1]
    response = sum(
        rng.normal(0.0, tilt_db / order) * np.cos(np.pi * order * position + rng.uniform(0.0, 2.0 * np.pi))
        for order in (1, 2, 3)
    )
    coloured: Array = power * np.exp(np.asarray(response) * DECIBEL).astype(np.float32)
    return coloured


def with_noise(
    power: Array, speech_power: float, snr_db: tuple[float, float], rng: np.random.Generator
) -> Array:
    """Add stationary noise of a random colour to (T, F) power.

    The power of a DFT bin of Gaussian noise is exponentially distributed around its mean.

    Args:
        power: the segment.
        speech_power: mean bin power of its speech.
        snr_db: lowest and highest signal-to-noise ratio.
        rng: draws the ratio, the colour (flat to falling with the cube of frequency) and the noise.
    """
    position = np.arange(power.shape[1]) / power.shape[1]
    colour = (position + 0.02) ** rng.uniform(-3.0, 0.5)
    mean = speech_power * 10.0 ** (-rng.uniform(*snr_db) / 10.0) * colour / colour.mean()
    noisy: Array = power + (mean * rng.exponential(1.0, power.shape)).astype(np.float32)
    return noisy


def warped(frames: Tensor, reach: float, generator: torch.Generator) -> Tensor:
    """Stretch or compress frequency and time of each of (B, T, F) frames by up to `reach`.

    Simulates another vocal-tract length and another tempo. Time is warped about the segment's start, so that
    a segment keeps its length.
    """
    batch, time, bins = frames.shape
    bin_scale, time_scale = 1.0 + reach * (2.0 * torch.rand(2, batch, generator=generator) - 1.0)
    across = _grid(bins)[None, :] * bin_scale[:, None] * 2.0 - 1.0  # (B, F)
    along = _grid(time)[None, :] * time_scale[:, None] * 2.0 - 1.0  # (B, T)
    grid = torch.stack(
        [across[:, None, :].expand(-1, time, -1), along[:, :, None].expand(-1, -1, bins)], dim=-1
    ).to(frames.device)
    return F.grid_sample(frames[:, None], grid, padding_mode="border", align_corners=False)[:, 0]


def masked(frames: Tensor, masks: int, mask_size: int, generator: torch.Generator) -> Tensor:
    """Set random bands and stretches of (B, T, F) normalised frames to 0: SpecAugment, Park et al. 2019.

    Draws from its own generator: dropout uses torch's global one in another thread at the same time.
    """
    batch, time, bins = frames.shape
    for _ in range(masks):
        stretch = _mask(batch, time, mask_size, generator)[:, :, None]
        band = _mask(batch, bins, mask_size, generator)[:, None, :]
        frames = frames.masked_fill(stretch, 0.0).masked_fill(band, 0.0)
    return frames


def _mask(batch: int, size: int, mask_size: int, generator: torch.Generator) -> Tensor:
    """Draw one mask for each item, at most `mask_size` and a quarter of `size` long: (B, size)."""
    share, place = torch.rand(2, batch, 1, generator=generator)
    length = share * min(mask_size, size // 4)
    start = place * (size - length)
    positions = torch.arange(size)[None, :]
    places: Tensor = (positions >= start.floor()) & (positions < start.floor() + length.floor())
    return places


def _grid(size: int) -> Tensor:
    return (torch.arange(size) + 0.5) / size
