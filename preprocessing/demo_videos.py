"""A small labeled set of H.264 files: textured objects whose classes differ only by how the object moves.

No single frame shows the class: positions, sizes, angles and textures are drawn from the same distributions in every
class. The mirror image of a video belongs to the same class, so that mirrored training clips keep their label.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from lgd.pipeline.storage.lock import locked
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.video.h264 import h264_writer

WIDTH, HEIGHT, FRAMES, FPS = 80, 64, 40, 25


class Pose(NamedTuple):
    """Position of the object: center in pixels, size in pixels, angle in radians."""

    x: float
    y: float
    size: float
    angle: float


Motion = Callable[[Pose, float, float], Pose]  # (pose at the start, speed, time from 0 to 1) -> pose

MIN_SIZE, MAX_SIZE = 18.0, 40.0

# A speed is between 0.75 and 1.25, with either sign; a class whose mirror image would be a different class uses the
# magnitude only.
MOTIONS: dict[str, Motion] = {
    "down": lambda p, v, t: p._replace(y=(p.y + abs(v) * 1.2 * HEIGHT * t) % HEIGHT),
    "grow": lambda p, v, t: p._replace(size=MIN_SIZE * (MAX_SIZE / MIN_SIZE) ** t),
    "shrink": lambda p, v, t: p._replace(size=MAX_SIZE * (MIN_SIZE / MAX_SIZE) ** t),
    "sideways": lambda p, v, t: p._replace(x=(p.x + v * 1.2 * WIDTH * t) % WIDTH),
    "spin": lambda p, v, t: p._replace(angle=p.angle + v * 1.5 * math.pi * t),
    "up": lambda p, v, t: p._replace(y=(p.y - abs(v) * 1.2 * HEIGHT * t) % HEIGHT),
}


def render_set(folder: Path, videos_per_class: int, seed: int = 0) -> None:
    """Write `folder/<class>/<class>_<number>.mp4`, 40 frames of 80 x 64 pixels each. Existing files are kept.

    Raises UserError if a folder or file cannot be written, and if another command is rendering to the folder.
    """
    with locked(Storage(folder), "lgd demo") as storage:
        for label, (name, motion) in enumerate(MOTIONS.items()):
            storage.make_folder(name)
            storage.clean(name)
            existing = storage.names(name)
            for number in range(videos_per_class):
                file = f"{name}_{number:03d}.mp4"
                if file not in existing:
                    random = np.random.default_rng([seed, label, number])
                    write_video(render(motion, random), storage, f"{name}/{file}")


def render(motion: Motion, random: np.random.Generator) -> np.ndarray:
    """Return the frames of one video: uint8 FRAMES x HEIGHT x WIDTH x 3, RGB."""
    background = _texture(random, (HEIGHT, WIDTH), grain=12) * 0.25 + 90.0
    side = 64
    texture = _texture(random, (side, side), grain=10)
    texture = texture + random.uniform(-40, 40, 3).astype(np.float32)
    center = (np.indices((side, side)) - (side - 1) / 2) / (side / 2)
    radius = np.hypot(*center)
    lobes = 1 + 0.15 * np.cos(random.integers(2, 6) * np.arctan2(*center) + random.uniform(0, 2 * math.pi))
    alpha = np.clip((0.8 * lobes - radius) * 12, 0, 1).astype(np.float32)
    size = random.uniform(MIN_SIZE, MAX_SIZE)
    start = Pose(random.uniform(0, WIDTH), random.uniform(0, HEIGHT), size, random.uniform(0, 2 * math.pi))
    speed = random.choice([-1, 1]) * random.uniform(0.75, 1.25)
    frames = []
    for number in range(FRAMES):
        frame = background.copy()
        pose = motion(start, speed, number / (FRAMES - 1))
        # An object that leaves the frame on one side enters it on the opposite side.
        for dx in (-WIDTH, 0, WIDTH):
            for dy in (-HEIGHT, 0, HEIGHT):
                _draw(frame, texture, alpha, pose=pose._replace(x=pose.x + dx, y=pose.y + dy))
        frames.append(np.clip(frame + random.normal(0, 2, frame.shape), 0, 255).astype(np.uint8))
    return np.stack(frames)


def write_video(frames: np.ndarray, folder: Storage, name: str) -> None:
    """Write frames (uint8 T x H x W x 3, RGB) to an H.264 file in a folder. Raises as `h264_writer`."""
    with h264_writer(folder, name, FPS, crf=18) as write_frame:
        for frame in frames:
            write_frame(frame)


def _texture(random: np.random.Generator, shape: tuple[int, int], grain: int) -> np.ndarray:
    """Return colored noise with details of about `grain` pixels: float32 H x W x 3, mostly between 0 and 255."""
    coarse = random.uniform(0, 255, (shape[0] // grain + 2, shape[1] // grain + 2, 3)).astype(np.float32)
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)


def _draw(frame: np.ndarray, texture: np.ndarray, alpha: np.ndarray, *, pose: Pose) -> None:
    """Draw the object onto the frame, in place."""
    side = len(texture)
    rotation = cv2.getRotationMatrix2D((side / 2, side / 2), math.degrees(pose.angle), pose.size / side)
    rotation[:, 2] = rotation[:, 2] + [pose.x - side / 2, pose.y - side / 2]
    extent = (frame.shape[1], frame.shape[0])
    mask = cv2.warpAffine(alpha, rotation, extent)[..., None]
    frame[:] = (1 - mask) * frame + mask * cv2.warpAffine(texture, rotation, extent, borderMode=cv2.BORDER_REPLICATE)
