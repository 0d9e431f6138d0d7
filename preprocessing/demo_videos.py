"""A small labelled set of real H.264 files: textured objects whose classes differ only by how they move.

No still frame tells the class: in every class places, sizes, angles and textures are drawn alike. Every class is its
own mirror image, so that mirrored training clips keep their label.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import ffmpeg
import numpy as np

from lgd.preprocessing.video.ffmpeg_child import ffmpeg_binary

WIDTH, HEIGHT, FRAMES, FPS = 80, 64, 40, 25


class Pose(NamedTuple):
    """Where the object is: center in pixels, size in pixels, angle in radians."""

    x: float
    y: float
    size: float
    angle: float


Motion = Callable[[Pose, float, float], Pose]  # (pose at the start, speed, time from 0 to 1) -> pose

MIN_PROBABILITY, LARGEST = 18.0, 40.0

# Speeds are -1 or 1 times something around 1; a class whose mirror image would be another one takes the magnitude.
MOTIONS: dict[str, Motion] = {
    "down": lambda p, v, t: p._replace(y=(p.y + abs(v) * 1.2 * HEIGHT * t) % HEIGHT),
    "grow": lambda p, v, t: p._replace(size=MIN_PROBABILITY * (LARGEST / MIN_PROBABILITY) ** t),
    "shrink": lambda p, v, t: p._replace(size=LARGEST * (MIN_PROBABILITY / LARGEST) ** t),
    "sideways": lambda p, v, t: p._replace(x=(p.x + v * 1.2 * WIDTH * t) % WIDTH),
    "spin": lambda p, v, t: p._replace(angle=p.angle + v * 1.5 * math.pi * t),
    "up": lambda p, v, t: p._replace(y=(p.y - abs(v) * 1.2 * HEIGHT * t) % HEIGHT),
}


def render_set(folder: Path, videos_per_class: int, seed: int = 0) -> None:
    """Writes `folder/<class>/<class>_<number>.mp4`, 40 frames of 80 x 64 pixels each. Files that are there stay."""
    for label, (name, motion) in enumerate(MOTIONS.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(videos_per_class):
            path = folder / name / f"{name}_{number:03d}.mp4"
            if not path.exists():
                random = np.random.default_rng([seed, label, number])
                encode(render(motion, random), path)


def render(motion: Motion, random: np.random.Generator) -> np.ndarray:
    """The frames of one video: uint8 FRAMES x HEIGHT x WIDTH x 3, RGB."""
    background = _texture(random, (HEIGHT, WIDTH), grain=12) * 0.25 + 90.0
    side = 64
    texture = _texture(random, (side, side), grain=10)
    texture = texture + random.uniform(-40, 40, 3).astype(np.float32)
    center = (np.indices((side, side)) - (side - 1) / 2) / (side / 2)
    radius = np.hypot(*center)
    lobes = 1 + 0.15 * np.cos(random.integers(2, 6) * np.arctan2(*center) + random.uniform(0, 2 * math.pi))
    alpha = np.clip((0.8 * lobes - radius) * 12, 0, 1).astype(np.float32)
    size = random.uniform(MIN_PROBABILITY, LARGEST)
    start = Pose(random.uniform(0, WIDTH), random.uniform(0, HEIGHT), size, random.uniform(0, 2 * math.pi))
    speed = random.choice([-1, 1]) * random.uniform(0.75, 1.25)
    frames = []
    for number in range(FRAMES):
        frame = background.copy()
        pose = motion(start, speed, number / (FRAMES - 1))
        # What leaves the picture on one side comes back on the other.
        for dx in (-WIDTH, 0, WIDTH):
            for dy in (-HEIGHT, 0, HEIGHT):
                _draw(frame, texture, alpha, pose=pose._replace(x=pose.x + dx, y=pose.y + dy))
        frames.append(np.clip(frame + random.normal(0, 2, frame.shape), 0, 255).astype(np.uint8))
    return np.stack(frames)


def encode(frames: np.ndarray, path: Path) -> None:
    """Writes frames (uint8 T x H x W x 3, RGB) as H.264."""
    height, width = frames.shape[1:3]
    command = (
        ffmpeg.input("pipe:", format="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", r=FPS)
        .output(str(path), vcodec="libx264", pix_fmt="yuv420p", crf=18, preset="veryfast", threads=1, loglevel="error")
        .overwrite_output()
    )
    command.run(cmd=str(ffmpeg_binary()), input=frames.tobytes(), quiet=True)


def _texture(random: np.random.Generator, shape: tuple[int, int], grain: int) -> np.ndarray:
    """Colored noise with details of about `grain` pixels, float32 H x W x 3 around 0 to 255."""
    coarse = random.uniform(0, 255, (shape[0] // grain + 2, shape[1] // grain + 2, 3)).astype(np.float32)
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)


def _draw(frame: np.ndarray, texture: np.ndarray, alpha: np.ndarray, *, pose: Pose) -> None:
    """Lays the object over the frame, in place."""
    side = len(texture)
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), math.degrees(pose.angle), pose.size / side)
    turn[:, 2] = turn[:, 2] + [pose.x - side / 2, pose.y - side / 2]
    extent = (frame.shape[1], frame.shape[0])
    mask = cv2.warpAffine(alpha, turn, extent)[..., None]
    frame[:] = (1 - mask) * frame + mask * cv2.warpAffine(texture, turn, extent, borderMode=cv2.BORDER_REPLICATE)
