"""Random streams: a generator for each purpose, so that no two purposes ever share a draw.

The seed is 63 bits: the stream's number in the low three, above them a keyed hash to which the
index of the draw is added. Streams, and the steps of one trial, therefore differ by construction:
torch's CPU generator (mt19937) uses only the low 32 bits of a seed, in which plain hashes of 10,000
training steps collide with probability 1e-2.
"""

from hashlib import blake2b
from typing import Literal, get_args

import torch

Stream = Literal[
    "installation", "train", "validation", "calibration", "ridge", "test", "evaluation"
]

_STREAM_BITS = 3  # 3 bits number 8 streams, and 7 are used
_NUMBER = {name: number for number, name in enumerate(get_args(Stream))}


def stream_seed(
    problem_seed: int, stream: Stream, index: int = 0, *, trial_seed: int | None = None
) -> int:
    """Seed of one draw of one stream.

    seed = 2³ · ((blake2b(problem_seed, stream, trial_seed) + index) mod 2⁶⁰) + number of the stream

    Args:
        problem_seed: The constant of the problem's size.
        stream: Purpose of the draw.
        index: Number of the draw in the stream; for "train" the step.
        trial_seed: The trial's seed, for "train" only: every trial sees the same installation,
            validation, calibration, ridge and test sets.

    Returns:
        An integer in [0, 2⁶³).

    Raises:
        ValueError: An unknown stream, or a trial's seed given to a stream that all trials share.
    """
    if stream not in _NUMBER:
        raise ValueError(f"no stream named {stream!r}; use one of {', '.join(_NUMBER)}")
    if (stream == "train") != (trial_seed is not None):
        raise ValueError(f"stream {stream!r}: trial_seed belongs to 'train', and only to 'train'")
    name = repr((problem_seed, stream, trial_seed)).encode()
    digest = int.from_bytes(blake2b(name, digest_size=8, person=b"ris-streams").digest(), "big")
    return (digest + index) % 2**60 << _STREAM_BITS | _NUMBER[stream]


def stream_generator(
    problem_seed: int,
    stream: Stream,
    index: int = 0,
    *,
    trial_seed: int | None = None,
    device: torch.device | str = "cpu",
) -> torch.Generator:
    """Generator of one draw of one stream, seeded by `stream_seed`.

    Args:
        problem_seed: The constant of the problem's size.
        stream: Purpose of the draw.
        index: Number of the draw in the stream; for "train" the step, so that the data of a step
            depends on (trial_seed, step) alone and a resumed trial needs no generator's state.
        trial_seed: The trial's seed for "train"; None for the others.
        device: Device of the draws. Only "train" may leave the CPU: devices draw different numbers
            from one seed, and two hosts must agree on the validation set.

    Raises:
        ValueError: As `stream_seed`, or a shared stream on another device than the CPU.
    """
    if stream != "train" and torch.device(device).type != "cpu":
        raise ValueError(f"stream {stream!r} is drawn on the CPU, not on {device!s}; move it after")
    generator = torch.Generator(device)
    return generator.manual_seed(stream_seed(problem_seed, stream, index, trial_seed=trial_seed))
