"""``sage model``: which models there are, what they are made of, whether they are sound, and pulling more."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.exits import errors_as_exit_codes
from cli.options import AsJson

if TYPE_CHECKING:
    from regime.model.checkpoint import Checkpoint
    from regime.model.registry import HubName

model = typer.Typer(name="model", help="The models that make forecasts.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(help="embedded, the path of a checkpoint, or OWNER/NAME[@REVISION].")]


@model.command("list")
def list_models(as_json: AsJson = False) -> None:
    """Name the models that are here, and those that can be pulled."""
    with errors_as_exit_codes():
        from regime.model.registry import models_root

        root = models_root()
        here, known = _models_here(root), _models_to_pull(root)
        if as_json:
            typer.echo(json.dumps({"directory": str(root), "models": here, "can_be_pulled": known}, indent=2))
        else:
            _show_list(root, here, known)


@model.command()
def info(name: Name = "embedded", as_json: AsJson = False) -> None:
    """Say what a model is made of, and where it came from."""
    with errors_as_exit_codes():
        from regime.model.checkpoint import find_checkpoint

        found = _described(find_checkpoint(name))
        if as_json:
            typer.echo(json.dumps(found, indent=2))
        else:
            _show_info(found)


@model.command()
def verify(name: Name = "embedded", as_json: AsJson = False) -> None:
    """Check a model's bytes, tensors and forecasts. Exit code 4 if something is wrong."""
    with errors_as_exit_codes():
        from cli import render
        from regime.errors import ModelUnavailable
        from regime.model.verify import verify as run_verify

        checks = run_verify(name)
        wrong = [check for check in checks if check.passed is False]
        if as_json:
            document = {"name": name, "sound": not wrong, "checks": [dataclasses.asdict(each) for each in checks]}
            typer.echo(json.dumps(document, indent=2))
        else:
            said = {True: "ok", False: "WRONG", None: "not checked"}
            rows = [(each.name, f"{said[each.passed]}: {each.detail}") for each in checks]
            render.result_console().print(render.table_of(rows, f"[bold]model {name}[/bold]"), highlight=False)
        if wrong:
            found = "; ".join(check.detail.removeprefix(f"model {name!r}: ") for check in wrong)
            raise ModelUnavailable(f"model {name!r} is not sound: {found}")


@model.command()
def pull(
    name: Annotated[str, typer.Argument(help="OWNER/NAME, for example NX-AI/TiRex.")],
    revision: Annotated[
        str | None, typer.Option(help="Commit, 40 hex digits. Default: the one that SAGE has pinned.")
    ] = None,
    sha256: Annotated[
        str | None, typer.Option(help="Of the published file, for a revision that is not pinned; else the hub's word.")
    ] = None,
    accept_license: Annotated[bool, typer.Option(help="Accept the model's licence; needed once.")] = False,
    as_json: AsJson = False,
) -> None:
    """Download a model from the hub, check it, and convert it. Needed once; --model OWNER/NAME then runs it."""
    with errors_as_exit_codes():
        from cli import render
        from data.errors import OptionError
        from regime.errors import ModelUnavailable
        from regime.model.pull import LicenceNotAccepted, PullRefused
        from regime.model.pull import pull as run_pull

        wanted = _wanted(name, revision)
        try:
            with render.LiveProgress() as progress:
                pulled = run_pull(
                    wanted,
                    sha256=sha256,
                    accept_licence=accept_license,
                    on_progress=progress.reach,
                    on_note=lambda text: typer.echo(f"sage: {text}", err=True),
                )
        except LicenceNotAccepted as error:
            typer.echo(error.licence.path.read_text(), err=True)
            raise OptionError(str(error)) from error
        except PullRefused as error:
            raise OptionError(str(error)) from error
        except KeyboardInterrupt:
            kept = "no model was written. What came of its file is kept: the same command goes on from there"
            raise KeyboardInterrupt(kept) from None
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            said = f"{where}{error.strerror or error}; no model was written"
            raise ModelUnavailable(f"{wanted}: {said} (SAGE_MODELS and HF_HOME say where to write)") from error
        document = {
            "name": str(pulled.provenance.name),
            "directory": str(pulled.directory),
            "already_there": pulled.already,
            "provenance": dataclasses.asdict(pulled.provenance),
            "attribution": _attribution(pulled.provenance.repo),
        }
        if as_json:
            typer.echo(json.dumps(document, indent=2))
        else:
            _show_pulled(document)


def _wanted(name: str, revision: str | None) -> HubName:
    from data.errors import OptionError
    from regime.model.registry import HubName, parse_revision

    try:
        parsed = HubName.parse(name)
    except ValueError as error:
        raise OptionError(str(error)) from error
    if parsed is None:
        raise OptionError(f"{name!r}: no name of a hub's model; they read OWNER/NAME, for example NX-AI/TiRex")
    if revision is None:
        return parsed
    try:
        commit = parse_revision(revision)
    except ValueError as error:
        raise OptionError(f"--revision {revision}: {error}") from error
    if parsed.revision not in {None, commit}:
        raise OptionError(f"--revision {revision}: the name says {parsed.revision}; give one of them")
    return dataclasses.replace(parsed, revision=commit)


def _models_here(root: Path) -> list[dict[str, Any]]:
    from regime.errors import ModelUnavailable
    from regime.model.checkpoint import EMBEDDED, find_checkpoint
    from regime.model.registry import pulled_models, read_provenance

    embedded = find_checkpoint(EMBEDDED)
    rows: list[dict[str, Any]] = [
        {"name": EMBEDDED, "checkpoint_id": embedded.id, "directory": str(embedded.weights.parent), "problem": ""}
    ]
    for name, directory in pulled_models(root).items():
        row = {"name": str(name), "checkpoint_id": None, "directory": str(directory), "problem": ""}
        try:
            provenance = read_provenance(directory)
            row["checkpoint_id"] = provenance.weights_sha256[:16] if provenance else None
            row["problem"] = "" if provenance else "no provenance is recorded"
            find_checkpoint(str(name))
        except ModelUnavailable as error:
            row["problem"] = str(error)
        rows.append(row)
    return rows


def _models_to_pull(root: Path) -> list[dict[str, Any]]:
    from regime.model.registry import HUB_MODELS, HubName, pulled_models

    there = pulled_models(root)
    return [
        {
            "name": known.repo,
            "about": known.about,
            "revision": known.pin.revision if known.pin else None,
            "size_bytes": known.pin.size_bytes if known.pin else None,
            "licence": known.licence.name,
            "pulled": known.pin is not None and HubName(known.repo, known.pin.revision) in there,
            "command": HubName(known.repo).pull_command,
        }
        for known in HUB_MODELS
    ]


def _described(checkpoint: Checkpoint) -> dict[str, Any]:
    import numpy as np

    from regime.forecast import QUANTILE_LEVELS
    from regime.model.checkpoint import CONFIG_FILE
    from regime.model.registry import read_provenance
    from regime.model.weights import load_weights

    architecture = load_weights(checkpoint).architecture
    provenance = read_provenance(checkpoint.weights.parent)
    config = checkpoint.weights.parent / CONFIG_FILE
    described = checkpoint.hyper_parameters is not None
    return {
        "name": checkpoint.name,
        "checkpoint_id": checkpoint.id,
        "sha256": checkpoint.sha256,
        "weights": str(checkpoint.weights),
        "architecture": dataclasses.asdict(architecture),
        "parameters": sum(int(np.prod(shape)) for shape in architecture.shapes().values()),
        "context_bars": architecture.context_bars,
        "quantiles": list(QUANTILE_LEVELS),
        "provenance": dataclasses.asdict(provenance) if provenance else None,
        "training": json.loads(config.read_text()).get("training") if described else None,
        "attribution": _attribution(provenance.repo) if provenance else None,
    }


def _attribution(repo: str) -> str | None:
    from regime.model.registry import known_model

    known = known_model(repo)
    return known.licence.attribution if known else None


def _show_list(root: Path, here: list[dict[str, Any]], known: list[dict[str, Any]]) -> None:
    from cli import render

    rows = [
        (row["name"], "  ".join(filter(None, [row["checkpoint_id"] or "?", row["problem"] or row["directory"]])))
        for row in here
    ]
    # A row, not the title: that would be folded at the table's width.
    rows.append(("pulled to", str(root)))
    console = render.result_console()
    console.print(render.table_of(rows, "[bold]models here[/bold]"), highlight=False)
    rows = []
    for each in known:
        size = f", {each['size_bytes'] / 1e6:,.0f} MB" if each["size_bytes"] else ""
        state = "pulled" if each["pulled"] else each["command"]
        rows.append((each["name"], f"{each['about']}{size}, {each['licence']}: {state}"))
    console.print(render.table_of(rows, "[bold]can be pulled[/bold]"), highlight=False)


def _show_info(found: dict[str, Any]) -> None:
    from cli import render

    sizes = found["architecture"]
    rows = [
        ("checkpoint", f"{found['checkpoint_id']}  ({found['weights']})"),
        ("parameters", f"{found['parameters']:,}"),
        ("network", f"{sizes['blocks']} blocks of width {sizes['width']} with {sizes['heads']} heads, "
                    f"patches of {sizes['patch_bars']} bars"),
        ("context", f"{found['context_bars']:,} bars"),
        ("quantiles", ", ".join(f"{level:g}" for level in found["quantiles"])),
    ]  # fmt: skip
    rows += _provenance_rows(found["provenance"]) if found["provenance"] else [("provenance", "none recorded")]
    if isinstance(found["training"], dict):
        plain = {name: value for name, value in found["training"].items() if not isinstance(value, dict)}
        rows.append(("training", ", ".join(f"{name} {value}" for name, value in plain.items())))
    console = render.result_console()
    console.print(render.table_of(rows, f"[bold]model {found['name']}[/bold]"), highlight=False)
    if found["attribution"]:
        console.print(found["attribution"], style="dim", highlight=False)


def _show_pulled(document: dict[str, Any]) -> None:
    from cli import render

    rows = [
        ("state", "already there" if document["already_there"] else "pulled"),
        ("in", document["directory"]),
        *_provenance_rows(document["provenance"]),
        ("use it", f"--model {document['name']}"),
    ]
    console = render.result_console()
    console.print(render.table_of(rows, f"[bold]model {document['name']}[/bold]"), highlight=False)
    if document["attribution"]:
        console.print(document["attribution"], style="dim", highlight=False)


def _provenance_rows(provenance: dict[str, Any]) -> list[tuple[str, str]]:
    licence = provenance["licence"]
    known_from = {
        "pin": "pinned in SAGE",
        "option": "given with --sha256",
        "hub": "on the hub's word, not pinned",
    }[provenance["sha256_from"]]
    return [
        ("from", f"{provenance['endpoint']}/{provenance['repo']}, revision {provenance['revision']}"),
        ("file", f"{provenance['file']}, {provenance['size_bytes']:,} bytes, sha256 {provenance['sha256']}"),
        ("", known_from),
        ("pulled", provenance["pulled_at"].replace("T", " ").replace("+00:00", " UTC")),
        ("licence", f"{licence}, accepted {provenance['licence_accepted_at']}" if licence else "unknown to SAGE"),
    ]
