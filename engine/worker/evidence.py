"""What a worker saw while a program drew one image: evidence, not truth.

A program could forge all of it, for it runs in the same process. The coordinator therefore holds it
against the static reading of the program and against its own clock and pixels (``engine.honesty``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Setting = bool | int | float | str


@dataclass(frozen=True)
class Evidence:
    """Observations of one request, of one image unless the request asks for more.

    Everything is what really ran, whatever the program's text says. Sizes are (height, width).
    """

    pipeline: str
    """Class of the loaded pipeline."""
    scheduler: str | None
    """Class of the scheduler behind the call; None where the pipeline has none."""
    timesteps: tuple[float, ...]
    """The scheduler's timesteps behind the call, as it ran them."""
    forwards: int
    """Calls of the denoiser."""
    batches: tuple[int, ...]
    """Rows of each call of the denoiser; twice the images under classifier-free guidance."""
    latent: tuple[int, ...]
    """Shape of one row of what the denoiser got, without the batch."""
    decoded: tuple[tuple[int, ...], ...]
    """Shapes of what each call of the autoencoder's decode got, with the batch."""
    delivered: tuple[tuple[int, int], ...]
    """Size of each image as the program returned it, in pixels."""
    images: int
    """Images that came back."""
    dtypes: Mapping[str, tuple[str, ...]]
    """Component to the dtypes of its parameters, largest share first."""
    computed: tuple[str, ...]
    """Dtypes of what the denoiser got."""
    autocast: str | None
    """Dtype of an active autocast at the denoiser; None without one."""
    shapes: Mapping[str, str]
    """Component to the hash of the shapes of all its weights as ``load_pipeline`` returned it."""
    methods: Mapping[str, Mapping[str, Setting]]
    """Techniques that really acted, by our names, with what was seen of them."""
    dead: tuple[str, ...] = ()
    """Techniques that were installed and did nothing in this image."""
    guided: bool | None = None
    """Whether any call of the denoiser had a row for each half of the guidance; None where the
    pipeline has no such guidance."""
    guidance: tuple[float, ...] = ()
    """Distinct guidance scales that the pipeline held at the denoiser's calls, in order."""
    hooks: int = 0
    """Forward hooks on the denoiser and its modules besides our own."""
    threads: tuple[int, int] = (0, 0)
    """Operating-system threads of the process before the image and one moment after it."""
    background: tuple[str, ...] = ()
    """Threads that still run the program's code behind the image, by name."""
    processes: int = 0
    """Processes that the program has started and that still run."""
    calls: int = 0
    """Calls of the pipeline in the request."""
    loads: int = 0
    """Pipelines and networks that were loaded while the request ran."""
    retouched: float | None = None
    """Distance, in grey levels, between an image that came back and what the decoder gave, in the
    block of 8 by 8 pixels where it is largest; None where these cannot be compared."""
    scored: tuple[str, ...] = ()
    """Models of image-text similarity that are in the process and not part of the pipeline."""
    opened: tuple[str, ...] = ()
    """Picture files that the program opened while it drew."""
    mapped: tuple[str, ...] = ()
    """What the trusted preamble changed of what the program says, in words."""
    numerics: Mapping[str, Setting] = field(default_factory=dict)
    """Switches of torch that change numbers or speed and differ from their default."""

    @property
    def steps(self) -> int:
        """Denoising steps by the scheduler's own list; its forwards where it keeps none."""
        return len(self.timesteps) or self.forwards

    def as_json(self) -> dict[str, Any]:
        """Plain data, which :meth:`of` reads again."""
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Evidence:
        """Evidence from JSON; raises ValueError for what is none, since a worker sent it."""
        try:
            return cls(
                pipeline=str(data["pipeline"]),
                scheduler=_text(data["scheduler"]),
                timesteps=tuple(float(t) for t in data["timesteps"]),
                forwards=int(data["forwards"]),
                batches=tuple(int(b) for b in data["batches"]),
                latent=tuple(int(n) for n in data["latent"]),
                decoded=tuple(tuple(int(n) for n in shape) for shape in data["decoded"]),
                delivered=tuple((int(h), int(w)) for h, w in data["delivered"]),
                images=int(data["images"]),
                dtypes={str(k): tuple(map(str, v)) for k, v in data["dtypes"].items()},
                computed=tuple(map(str, data["computed"])),
                autocast=_text(data["autocast"]),
                shapes={str(k): str(v) for k, v in data["shapes"].items()},
                methods={str(k): _settings(v) for k, v in data["methods"].items()},
                dead=tuple(map(str, data["dead"])),
                guided=None if data["guided"] is None else bool(data["guided"]),
                guidance=tuple(float(g) for g in data["guidance"]),
                hooks=int(data["hooks"]),
                threads=(int(data["threads"][0]), int(data["threads"][1])),
                background=tuple(map(str, data["background"])),
                processes=int(data["processes"]),
                calls=int(data["calls"]),
                loads=int(data.get("loads", 0)),
                retouched=_number(data.get("retouched")),
                scored=tuple(map(str, data["scored"])),
                opened=tuple(map(str, data["opened"])),
                mapped=tuple(map(str, data["mapped"])),
                numerics=_settings(data["numerics"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise ValueError(f"no evidence: {type(error).__name__}: {error}") from error


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _settings(values: Mapping[str, Any]) -> dict[str, Setting]:
    plain = (bool, int, float, str)
    return {str(k): v if isinstance(v, plain) else str(v) for k, v in values.items()}
