"""The diagram of docs/architecture.md, from the rules of imports; `python -m docs.layers` prints it."""

from __future__ import annotations

import sys
import tomllib

from orchestration.settings import PROJECT_ROOT


def diagram() -> str:
    """Mermaid's flowchart of the packages and of the layers in each: an arrow points at what may be imported."""
    rules = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    lines = ["flowchart TD"]
    for contract in rules["contracts"]:
        for package in contract.get("containers", ()):
            layers = (f'{package}{number}["{_names(layer)}"]' for number, layer in enumerate(contract["layers"]))
            lines += [f"  subgraph {package}", "    " + " --> ".join(layers), "  end"]
    (packages,) = (
        contract for contract in rules["contracts"] if contract.get("layers") and "containers" not in contract
    )
    above, between, below = packages["layers"]
    lines += [f"  {above} --> {package} --> {below}" for package in between.split(" | ")]
    return "\n".join(lines) + "\n"


def _names(layer: str) -> str:
    return layer.strip("()").replace(" | ", ", ").replace(" : ", ", ")


if __name__ == "__main__":
    sys.stdout.write(diagram())
