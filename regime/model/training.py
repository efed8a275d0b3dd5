"""Train the compact TiRex checkpoint from scratch on simulated series.

``python -m regime.model.training --out DIR`` writes ``model.safetensors`` and ``config.json``. The loss is
the pinball loss of the nine quantiles of the next patch, at every position that has seen the bars it is
scaled by. Scaling by a random prefix, not by the whole series, keeps the future out of the scale. Some patches are
hidden from the model, in spans, so that it learns to forecast over patches that it has not seen.

A run that was interrupted goes on where it last saved its state, with the same batches to come.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tirex.models.tirex import TiRexZero

from regime.forecast import QUANTILE_LEVELS
from regime.model import simulation
from regime.model.checkpoint import CONFIG_FILE, WEIGHTS_FILE, sha256_of
from regime.model.slstm import use_full_precision_cells

MIN_SCALE_PATCHES = 2
POOL_SERIES = 4096
SAVE_EVERY_STEPS = 100


@dataclass(frozen=True)
class TrainingConfig:
    """What to train, on how much, from which seed."""

    seed: int = 20260101
    steps: int = 10000
    batch_series: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warm_up_steps: int = 100
    gradient_norm_max: float = 1.0
    patch_bars: int = 16
    context_bars: int = 512
    width: int = 128
    heads: int = 4
    blocks: int = 4
    hidden_width: int = 256


def model_hyper_parameters(config: TrainingConfig) -> dict[str, object]:
    """The keyword arguments of ``TiRexZero`` for this configuration."""
    return {
        "model_config": {
            "input_patch_size": config.patch_bars,
            "output_patch_size": config.patch_bars,
            "quantiles": list(QUANTILE_LEVELS),
            "block_kwargs": {"embedding_dim": config.width, "num_heads": config.heads, "num_blocks": config.blocks},
            "input_ff_dim": config.hidden_width,
        },
        "train_ctx_len": config.context_bars,
    }


def build_model(config: TrainingConfig) -> TiRexZero:
    """A model with fresh weights. The stock package leaves several of them uninitialised memory."""
    model = TiRexZero(backend="torch", **model_hyper_parameters(config))
    use_full_precision_cells(model)
    for name, parameter in model.named_parameters():
        if name.endswith("_recurrent_kernel_"):
            torch.nn.init.normal_(parameter, std=0.02)
        elif name.endswith("_bias_"):
            # (head, gate, head width): forget logits spread over short and long memories.
            bias = torch.zeros(config.heads, 4, config.width // config.heads)
            bias[:, 1] = torch.linspace(1.0, 6.0, bias.shape[-1])
            parameter.data.copy_(bias.reshape(-1))
        elif "norm" in name:
            continue
        elif parameter.ndim == 3:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
        elif parameter.ndim == 1:
            # Zero biases make an all-NaN patch a zero vector, where the norm's gradient is infinite.
            torch.nn.init.uniform_(parameter, -0.1, 0.1)
    return model


class SeriesPool:
    """Hands out batches of simulated series, refilled when used up."""

    def __init__(self, config: TrainingConfig) -> None:
        self._config = config
        self._rng = np.random.default_rng(config.seed)
        self._bars = config.context_bars + config.patch_bars
        self._returns = np.empty((0, self._bars))
        self._first_patch = np.empty(0, dtype=np.int64)

    def state_dict(self) -> dict[str, Any]:
        """All that decides the batches to come."""
        return {
            "rng": self._rng.bit_generator.state,
            "returns": torch.from_numpy(self._returns),
            "first_patch": torch.from_numpy(self._first_patch),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._rng.bit_generator.state = state["rng"]
        self._returns, self._first_patch = state["returns"].numpy(), state["first_patch"].numpy()

    def batch(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Scaled series (series, bars) with NaN gaps, loss weights (series, patches) and hidden patches (the same)."""
        config = self._config
        if len(self._returns) < config.batch_series:
            self._returns = simulation.simulate_series(self._rng, POOL_SERIES, self._bars)
            max_truncation = config.context_bars // config.patch_bars - MIN_SCALE_PATCHES - 1
            self._first_patch = simulation.truncate_left(self._rng, self._returns, config.patch_bars, max_truncation)
        returns, self._returns = self._returns[: config.batch_series], self._returns[config.batch_series :]
        first, self._first_patch = self._first_patch[: config.batch_series], self._first_patch[config.batch_series :]
        patches = config.context_bars // config.patch_bars
        scaled_until = self._rng.integers(first + MIN_SCALE_PATCHES, patches + 1)
        bars = np.arange(self._bars)[None, :]
        prefix = np.where(bars < scaled_until[:, None] * config.patch_bars, returns, np.nan)
        mean = np.nanmean(prefix, axis=1, keepdims=True)
        scale = np.nanstd(prefix, axis=1, keepdims=True)
        scale = np.where(scale > 0, scale, 1.0)
        scaled = np.clip((returns - mean) / scale, -50.0, 50.0)
        # Output t speaks of patch t + 1, so the first that knows its whole scale is scaled_until - 1.
        weights = np.arange(patches)[None, :] >= scaled_until[:, None] - 1
        hidden = simulation.mask_patches(self._rng, len(scaled), patches)
        return (
            torch.from_numpy(scaled.astype(np.float32)),
            torch.from_numpy(weights.astype(np.float32)),
            torch.from_numpy(hidden),
        )


def pinball_loss(predicted: torch.Tensor, target: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mean pinball loss of (series, patches, quantiles, patch bars) against (series, patches, patch bars)."""
    levels = torch.tensor(QUANTILE_LEVELS).view(1, 1, -1, 1)
    error = target.unsqueeze(2) - predicted
    loss = torch.maximum(levels * error, (levels - 1.0) * error).mean(dim=(2, 3))
    per_series = (loss * weights).sum(dim=1) / weights.sum(dim=1)
    return per_series.mean()


def train(
    config: TrainingConfig,
    out: Path,
    *,
    compiled: bool = False,
    on_step: Callable[[int, str], None] = lambda *_: None,
) -> None:
    """Train and write the checkpoint into ``out``.

    Parameters
    ----------
    config
        The recipe; the same one gives the same weights on the same machine.
    out
        Made if it is not there. While training, the state to resume from lies beside it.
    compiled
        Let torch compile the network first: minutes of waiting, then several times faster.
    on_step
        Called with the number of steps just done, and a line for people.

    Raises
    ------
    ValueError
        If the state beside ``out`` is another recipe's.
    """
    torch.manual_seed(config.seed)
    model = build_model(config)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98)
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=config.learning_rate,
        total_steps=config.steps,
        pct_start=min(0.3, config.warm_up_steps / config.steps),
        div_factor=20.0,
        final_div_factor=100.0,
    )
    pool = SeriesPool(config)
    losses: list[float] = []
    resume = out.with_name(out.name + ".resume")
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule, "pool": pool}
    if resume.exists():
        losses = _restore(resume, config, parts)
        on_step(len(losses), f"resuming after step {len(losses)}")
    forward = torch.compile(model._forward_model) if compiled else model._forward_model
    started, first = time.monotonic(), len(losses)
    for step in range(first, config.steps):
        series, weights, hidden = pool.batch()
        patches = series.unfold(1, config.patch_bars, config.patch_bars)
        shown = patches[:, :-1].masked_fill(hidden.unsqueeze(2), torch.nan)
        known = torch.isnan(shown).logical_not().to(shown.dtype)
        outputs = forward(torch.cat((torch.nan_to_num(shown), known), dim=2))
        predicted = outputs.unflatten(-1, (len(QUANTILE_LEVELS), config.patch_bars))
        loss = pinball_loss(predicted, patches[:, 1:].nan_to_num(), weights)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_norm_max, error_if_nonfinite=True)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        rate = (step + 1 - first) / (time.monotonic() - started)
        recent = float(np.mean(losses[-50:]))
        on_step(1, f"loss {recent:.4f}  gradient norm {float(norm):.2f}  {rate:.2f} steps/s")
        if step % SAVE_EVERY_STEPS == SAVE_EVERY_STEPS - 1:
            _save(resume, config, parts, losses)
    _write(model, config, losses, out)
    resume.unlink(missing_ok=True)


def _save(path: Path, config: TrainingConfig, parts: dict[str, Any], losses: list[float]) -> None:
    """Write all that it takes to go on; the old state stays until the new one is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    states = {name: part.state_dict() for name, part in parts.items()}
    torch.save({"config": asdict(config), "losses": losses, **states}, unfinished)
    unfinished.replace(path)


def _restore(path: Path, config: TrainingConfig, parts: dict[str, Any]) -> list[float]:
    """Bring all parts to a saved state, and return the losses up to it. Raises ValueError for another recipe's."""
    state = torch.load(path, weights_only=True)
    if state["config"] != asdict(config):
        raise ValueError(f"{path} belongs to another recipe; remove it to begin anew")
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return list(state["losses"])


def _write(model: TiRexZero, config: TrainingConfig, losses: list[float], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    path = out / WEIGHTS_FILE
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    # A checkpoint is no secret, but safetensors makes its files their owner's alone.
    path.chmod(0o644)
    tail = max(1, len(losses) // 20)
    document = {
        "architecture": "TiRexZero",
        "hyper_parameters": model_hyper_parameters(config),
        "weights_sha256": sha256_of(path),
        "training": {
            **asdict(config),
            "recipe": simulation.RECIPE,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "loss_first": round(float(np.mean(losses[:tail])), 5),
            "loss_last": round(float(np.mean(losses[-tail:])), 5),
            "loss_unit": "mean pinball loss of nine quantiles, in standard deviations of the context",
        },
    }
    (out / CONFIG_FILE).write_text(json.dumps(document, indent=2) + "\n")


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Saturated gates make denormal numbers, which are many times slower than zeros. A setting of this thread."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def main() -> None:
    """Command line of ``python -m regime.model.training``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory for model.safetensors and config.json")
    parser.add_argument("--steps", type=int, default=TrainingConfig.steps)
    parser.add_argument("--seed", type=int, default=TrainingConfig.seed)
    parser.add_argument("--compile", action="store_true", help="compile first; needs a C++ compiler")
    arguments = parser.parse_args()
    config = TrainingConfig(seed=arguments.seed, steps=arguments.steps)
    done = 0

    def tell(steps: int, note: str) -> None:
        nonlocal done
        done += steps
        if steps > 1 or done % 50 == 0:
            print(f"step {done}/{config.steps}  {note}", file=sys.stderr, flush=True)

    with flushed_denormals():
        train(config, arguments.out, compiled=arguments.compile, on_step=tell)


if __name__ == "__main__":
    main()
