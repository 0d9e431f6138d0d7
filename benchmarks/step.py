"""Time and peak memory of one training step of the paper's networks, on this machine.

    python -m benchmarks.step                                             # R50 and R101, 16 and 128 frames, batch 1
    python -m benchmarks.step --models lgd3d_r50 --frames 16 --batch 64   # on a GPU: ours beside the plain way

On a CPU a step runs in float32 and the memory is the process's resident peak. On a GPU the network runs as we train it
(bfloat16 autocast, channels last, compiled) and, in turn, the plain way (float32, contiguous, eager); printed are the
ratio and the fraction of the card's dense bfloat16 peak. A training step is counted as three forward passes.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.table import Table

from training.models.config import ModelConfig
from training.models.zoo import build, count

CLASSES = 400
BF16_PEAK_TFLOPS = {"H100": 989.0, "H200": 989.0, "A100": 312.0, "L40S": 362.0}  # dense, from the data sheets


@dataclass(frozen=True)
class Options:
    """What is measured."""

    models: tuple[str, ...] = ("lgd3d_r50", "lgd3d_r101")
    """Names of `lgd models`."""
    frames: tuple[int, ...] = (16, 128)
    """Frames of a clip."""
    batch: int = 1
    """Clips in a step."""
    steps: int = 3
    """Steps timed, after one that is not; the median counts."""
    checkpoint_activations: bool = False
    """Compute activations again in the backward pass."""
    plain: bool = False
    """Float32, contiguous, eager: what `ours` is compared with on a GPU."""
    alone: bool = False
    """Measure in this process and print JSON; without it every measurement has a process of its own."""


def measure(options: Options) -> dict[str, Any]:
    """One network, the first of `models` and `frames`: seconds, clips per second, peak memory in GiB."""
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    ours = cuda and not options.plain
    config = ModelConfig(
        name=options.models[0], frames=options.frames[0], checkpoint_activations=options.checkpoint_activations
    )
    layout = torch.contiguous_format if options.plain else torch.channels_last_3d
    network: Any = build(config, CLASSES, 3).to(device=device)
    video = torch.randn(options.batch, *count(config, CLASSES, 3).input, device=device).to(memory_format=layout)
    label = torch.zeros(options.batch, dtype=torch.long, device=device)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    if not options.plain:
        network = network.to(memory_format=layout)
    forward = torch.compile(network) if ours else network
    times = []
    for _ in range(options.steps + 1):
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=ours):
            output = forward(video)
        loss = network.loss(output, label).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times[1:])
    memory = torch.cuda.max_memory_allocated() / 2**30 if cuda else _resident_gib()
    macs = count(config, CLASSES, 3).gmac
    result: dict[str, Any] = {
        "model": config.name,
        "frames": config.clip_frames,
        "batch": options.batch,
        "arithmetic": "bfloat16, compiled, channels last" if ours else "float32, eager",
        "seconds": seconds,
        "clips_per_s": options.batch / seconds,
        "memory_gib": memory,
        "tflops": 6 * macs * options.batch / seconds / 1e3,
    }
    if cuda:
        peak = next((p for name, p in BF16_PEAK_TFLOPS.items() if name in torch.cuda.get_device_name()), None)
        result["of_bf16_peak"] = result["tflops"] / peak if peak else None
    return result


def _resident_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _in_its_own_process(options: Options, **changes: Any) -> dict[str, Any]:
    words = [sys.executable, "-m", "benchmarks.step", "--alone"]
    for name, value in {**asdict(options), **changes}.items():
        if isinstance(value, bool):
            words += [f"--{name.replace('_', '-')}"] if value and name != "alone" else []
        else:
            words += [f"--{name}", *map(str, value if isinstance(value, tuple) else (value,))]
    return json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main() -> None:
    options = tyro.cli(Options, config=(tyro.conf.FlagCreatePairsOff,), description=__doc__)
    if options.alone:
        print(json.dumps(measure(options)))
        return
    table = Table("network", "frames", "batch", "arithmetic", "s/step", "clips/s", "GiB", "TFLOP/s", "of bf16 peak")
    for model in options.models:
        for frames in options.frames:
            one = {"models": (model,), "frames": (frames,)}
            rows = [_in_its_own_process(options, **one)]
            if torch.cuda.is_available() and not options.plain:
                rows.append(_in_its_own_process(options, **one, plain=True))
            for row in rows:
                numbers = [f"{row[name]:.3g}" for name in ("seconds", "clips_per_s", "memory_gib", "tflops")]
                share = f"{row['of_bf16_peak']:.1%}" if row.get("of_bf16_peak") else "-"
                table.add_row(model, str(frames), str(options.batch), row["arithmetic"], *numbers, share)
            if len(rows) == 2:
                table.add_row("", "", "", "ratio", "", f"{rows[0]['clips_per_s'] / rows[1]['clips_per_s']:.2f}")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
