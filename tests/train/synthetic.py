"""Small sounds, clips and networks that stand in for recordings and for a trained model."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
from safetensors.torch import save_file

from edge.arrays import Array
from edge.features.frontend import FrontEnd
from edge.features.log_mel import LOG_MEL
from edge.features.mel_power import MEL_POWER
from edge.features.normaliser import BinStatistics, GainConfig
from edge.labels import EMOTIONS
from train.checkpoint import Checkpoint
from train.corpora import Clip
from train.model import Architecture, EmotionNet
from train.pretrained_net import PretrainedArchitecture, PretrainedNet
from train.recurrent_net import RecurrentArchitecture, RecurrentEncoder, RecurrentNet
from train.segments import Normalisation, Spectra
from train.whisper_encoder import HEAD_SIZE, WhisperEncoder

TINY = Architecture(channels=(2, 3, 4), projection=8, hidden=8, fully_connected=8, dropout=0.0)
"""The default layers with few maps and units: thousands of times cheaper."""

TINY_PRETRAINED = PretrainedArchitecture(width=HEAD_SIZE, blocks=2, fully_connected=8)
"""The narrowest encoder, of one attention head."""

TINY_RECURRENT = RecurrentArchitecture(units=16, fully_connected=8)

SAMPLE_RATE = 16_000


def voice(speaker: int, emotion: str, take: int, seconds: float) -> Array:
    """Make (N,) samples whose pitch tells the speaker and whose band and beat tell the emotion."""
    rng = np.random.default_rng((speaker, EMOTIONS.index(emotion), take))
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    pitch = 110.0 + 30.0 * speaker + 2.0 * take
    band = {"neutral": 4, "happy": 20, "sad": 2, "angry": 12}[emotion]
    beat = {"neutral": 2.0, "happy": 6.0, "sad": 1.0, "angry": 9.0}[emotion]
    tone = np.sin(2 * np.pi * pitch * time) + np.sin(2 * np.pi * band * pitch * time)
    loudness = 0.06 * (1.2 + np.sin(2 * np.pi * beat * time))
    samples: Array = (loudness * tone + 0.003 * rng.standard_normal(len(time))).astype(np.float32)
    return samples


def write_corpus(folder: Path, speakers: int = 4, takes: int = 2, seconds: float = 0.7) -> Path:
    """Write a manifest and its recordings: some takes of each emotion by each speaker."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["path", "corpus", "speaker", "gender", "emotion"])
        for speaker, emotion, take in _all(speakers, takes):
            name = f"{speaker}-{emotion}-{take}.wav"
            soundfile.write(folder / name, voice(speaker, emotion, take, seconds), SAMPLE_RATE)
            table.writerow([name, "synthetic", f"s{speaker}", "fm"[speaker % 2], emotion])
    return folder


def write_iemocap(root: Path, sessions: int = 2, takes: int = 2) -> Path:
    """Write a release in the form of IEMOCAP: two speakers a session, each emotion some times."""
    codes = {"neutral": "neu", "happy": "hap", "sad": "sad", "angry": "ang"}
    for session in range(1, sessions + 1):
        folder, dialog = root / f"Session{session}", f"Ses{session:02}F_impro01"
        evaluation, wav = folder / "dialog" / "EmoEvaluation", folder / "sentences" / "wav" / dialog
        evaluation.mkdir(parents=True)
        wav.mkdir(parents=True)
        lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"]
        for speaker, emotion, take in _all(2, takes):
            turn = f"{dialog}_{'FM'[speaker]}{EMOTIONS.index(emotion)}{take:02}"
            rating = 1.5 + EMOTIONS.index(emotion)
            ratings = f"[{rating:.4f}, {6 - rating:.4f}, 3.0000]"
            lines.append(f"[{take}.0000 - {take}.7000]\t{turn}\t{codes[emotion]}\t{ratings}\n")
            samples = voice(2 * session + speaker, emotion, take, 0.7)
            soundfile.write(wav / f"{turn}.wav", samples, SAMPLE_RATE)
        (evaluation / f"{dialog}.txt").write_text("".join(lines), "utf-8")
    return root


def make_spectra(
    speakers: int = 4, takes: int = 2, frames: Sequence[int] = (60, 90), corpus: str = "made"
) -> list[Spectra]:
    """Make spectra without sound: each clip is loud in two bins of its own speaker and emotion."""
    made = []
    for number, (speaker, emotion, take) in enumerate(_all(speakers, takes)):
        rng = np.random.default_rng((7, speaker, EMOTIONS.index(emotion), take))
        logs = rng.normal(-4.0, 0.5, (frames[number % len(frames)], 200))
        logs[:, speaker_bin(speaker)] += 6.0
        logs[:, 100 + 20 * EMOTIONS.index(emotion) : 110 + 20 * EMOTIONS.index(emotion)] += 5.0
        clip = Clip(
            path=Path(f"{speaker}-{emotion}-{take}.wav"),
            corpus=corpus,
            speaker=f"s{speaker}",
            emotion=emotion,
            valence=1.0 + EMOTIONS.index(emotion),
            arousal=4.5 - EMOTIONS.index(emotion),
            dominance=3.0,
        )
        made.append(Spectra(clip, logs.astype(np.float16)))
    return made


def speaker_bin(speaker: int) -> int:
    """Return the bin in which all clips of a speaker are loud."""
    return 10 * (speaker + 1)


def tiny_checkpoint(
    arch: Architecture = TINY, temperature: float | None = 1.3, seed: int = 0
) -> Checkpoint[EmotionNet]:
    """Make a model that is untrained, but as sensitive to its input and as normalised as a trained one."""
    torch.manual_seed(seed)
    net = with_random_norms(EmotionNet(arch))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3.0 if parameter.ndim == 2 else 1.0)
    rng = np.random.default_rng(seed)
    statistics = BinStatistics(
        rng.normal(-3.0, 0.5, 200).astype(np.float32), rng.uniform(1.0, 2.0, 200).astype(np.float32)
    )
    training = {
        "command": "mmtl train somewhere --out run",
        "options": {"draw": {"window": 297}},
        "corpora": [{"name": "made", "licence": "CC BY-NC-SA 4.0", "clips": 32, "ratings": "derived"}],
        "speakers": {"train": ["s0", "s1"], "validation": ["s2"], "test": ["s3"]},
        "git_revision": "0123abc",
    }
    normalisation = Normalisation(GainConfig(reference=1.0), statistics)
    return Checkpoint(net.eval(), FrontEnd(), normalisation, training, temperature)


def tiny_pretrained(
    arch: PretrainedArchitecture = TINY_PRETRAINED, temperature: float | None = 1.3, seed: int = 0
) -> Checkpoint[PretrainedNet]:
    """Make an untrained network as sensitive as a trained one, its encoder in float16 as published."""
    torch.manual_seed(seed)
    net = PretrainedNet(arch)
    with torch.no_grad():
        torch.nn.init.normal_(net.encoder.positions, std=0.1)
        for tensor in net.encoder.state_dict().values():
            tensor.copy_((1.5 * tensor).half())
        pooled = net.pooled(torch.linspace(0.3, 3.0, 16)[:, None, None] * torch.randn(16, 120, 80))
        net.embedding_mean.copy_(pooled.mean(0))
        net.embedding_std.copy_(pooled.std(0).clamp(min=0.02))
        for parameter in net.head.parameters():
            parameter.mul_(3.0 if parameter.ndim == 2 else 1.0)
    unit = BinStatistics(np.zeros(LOG_MEL.frame_size, np.float32), np.ones(LOG_MEL.frame_size, np.float32))
    training = tiny_checkpoint().training
    return Checkpoint(net.eval(), LOG_MEL, Normalisation(GainConfig(), unit), training, temperature)


def tiny_recurrent(temperature: float | None = 1.3, seed: int = 0) -> Checkpoint[RecurrentNet]:
    """Make an untrained network on a recurrent encoder, as sensitive as a trained one."""
    torch.manual_seed(seed)
    net = RecurrentNet(TINY_RECURRENT)
    with torch.no_grad():
        for tensor in net.encoder.state_dict().values():
            tensor.copy_((2.0 * tensor).half())
        loudness = torch.logspace(-4.0, 0.5, 16)[:, None, None]
        features, _ = net.encoder(loudness * torch.rand(16, 120, MEL_POWER.frame_size))
        pooled = net.pooled(features)
        net.embedding_mean.copy_(pooled.mean(0))
        net.embedding_std.copy_(pooled.std(0).clamp(min=0.05))
        for parameter in net.head.parameters():
            parameter.mul_(2.0 if parameter.ndim == 2 else 1.0)
    bands = MEL_POWER.frame_size
    unit = BinStatistics(np.zeros(bands, np.float32), np.ones(bands, np.float32))
    normalisation = Normalisation(GainConfig(reference=-1.0), unit)
    return Checkpoint(net.eval(), MEL_POWER, normalisation, tiny_checkpoint().training, temperature)


def write_encoder(path: Path, blocks: int = 2, seed: int = 0) -> Path:
    """Write the file of an encoder of one attention head, in float16 as the published ones are."""
    torch.manual_seed(seed)
    encoder = WhisperEncoder(HEAD_SIZE, blocks)
    save_file({name: value.half() for name, value in encoder.state_dict().items()}, path)
    return path


def write_recurrent_encoder(path: Path, units: int = 16, layers: int = 3, seed: int = 0) -> Path:
    """Write the file of a recurrent encoder, in float16 and by the names of the published one."""
    torch.manual_seed(seed)
    tensors = {}
    for name, value in RecurrentEncoder(units, layers).state_dict().items():
        _, index, kind = name.split(".")
        tensors[f"lstm.{kind.removesuffix('_l0')}_l{index}"] = value.half()
    save_file(tensors, path)
    return path


def with_random_norms(net: EmotionNet) -> EmotionNet:
    """Give every batch normalisation statistics and scales far from their initial ones."""
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.uniform_(-0.5, 0.5)
            assert module.running_var is not None
            module.running_var.uniform_(0.3, 3.0)
            torch.nn.init.uniform_(module.weight, 0.5, 2.0)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
    return net


def terms_of(net: torch.nn.Module) -> int:
    """Count the products on a value's way through all layers, for the tolerance of what comes out."""
    return sum(parameter[0].numel() for parameter in net.parameters() if parameter.ndim > 1)


def _all(speakers: int, takes: int) -> Iterator[tuple[int, str, int]]:
    for speaker in range(speakers):
        for emotion in EMOTIONS:
            for take in range(takes):
                yield speaker, emotion, take
