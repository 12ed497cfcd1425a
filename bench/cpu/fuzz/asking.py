"""Makes a call and holds it to what every call promises, whatever it answers."""

import traceback
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from bench.cpu.fuzz.verdict import Verdict


def asked(
    verdict: Verdict,
    act: Callable[[], Any],
    rightly: Callable[[str], bool],
    held: list[Any],
) -> Any:
    """Return the answer, or None and a verdict: nothing may warn, fail, or change what is held."""
    before = [_bytes(x) for x in held]
    state = torch.get_rng_state()
    answer = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            answer = act()
    except ValueError as error:
        if rightly(str(error)):
            verdict.at_least("refused")
        else:
            verdict.wrong(f"refused: {error}")
    except Exception as error:  # noqa: BLE001
        at = traceback.extract_tb(error.__traceback__)[-1]
        verdict.wrong(f"{type(error).__name__} at {at.filename}:{at.lineno}: {error}")
    verdict.require(before == [_bytes(x) for x in held], "what was handed over has changed")
    verdict.require(bool((state == torch.get_rng_state()).all()), "random numbers were drawn")
    return answer


def _bytes(x: Any) -> Any:
    if isinstance(x, torch.Tensor):
        return x.double().numpy().tobytes()
    return x.tobytes() if isinstance(x, np.ndarray) else None
