"""Makes distributions on disk as an installer would leave them, for tests of discovery."""

from __future__ import annotations

from pathlib import Path

ASSIGNER = '''\
from detcore.interfaces import Assigner
from detcore.structures import Assignment


class {name}(Assigner):
    """An assigner."""

    def __init__(self, *, thr: float = 0.5) -> None:
        super().__init__()
        self.thr = thr

    def assign(self, priors, targets, predictions=None, batch=None) -> Assignment:
        raise AssertionError
'''


def install(
    folder: Path, name: str, groups: dict[str, dict[str, str]], modules: dict[str, str], version: str = "1.2"
) -> None:
    """Writes ``name``'s metadata with entry points ``{group: {entry: target}}`` and its modules into ``folder``."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    sections = [
        f"[{group}]\n" + "".join(f"{entry} = {target}\n" for entry, target in points.items())
        for group, points in groups.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(sections))
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source)
