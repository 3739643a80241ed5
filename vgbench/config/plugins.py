"""Plugins: methods, datasets, metrics and probes from elsewhere, out of installed packages or straight from a file.

An installed package names its classes in the entry-point groups ``vgbench.methods``, ``vgbench.datasets``,
``vgbench.metrics`` and ``vgbench.probes``. ``--plugin FILE.py`` (or a package's folder, or its name) takes every such
class of a module without installing anything. Both become choices of ``method=`` and ``dataset=``: with the YAML
files in a folder ``configs`` beside the module if it has one (groups ``method``, ``dataset``, ``recipe``), else with
the constructor's defaults.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from vgbench.core.errors import UserError
from vgbench.core.registry import Registry, datasets, methods, metrics, probes, styles

GROUPS = {"method": methods, "dataset": datasets}
_SIMPLE = (type(None), bool, int, float, str)


def load(spec: str) -> ModuleType:
    """Import a plugin and register its classes.

    Args:
        spec: a Python file, the folder of a package (or of a project with one package in it), or a module's name.

    Raises:
        UserError: if there is no such thing, it cannot be imported, it defines nothing of ours, or a name is taken.
    """
    path = Path(spec).expanduser()
    if path.suffix == ".py" or path.is_dir():
        module = _import_path(_package(path) if path.is_dir() else path)
    else:
        try:
            module = importlib.import_module(spec)
        except ImportError as error:
            raise UserError(f"--plugin {spec}: neither a file, a folder nor an importable module ({error})") from error
    names = _register(module)
    if not names:
        raise UserError(
            f"--plugin {spec}: defines no method, dataset, metric, probe or answer style (subclasses of "
            "GroundingMethod, GroundingData, GroundingMetric, Probe, AnswerStyle)"
        )
    return module


def _package(folder: Path) -> Path:
    """The ``__init__.py`` of a package's folder, or of the one package in a project's folder."""
    if (folder / "__init__.py").is_file():
        return folder / "__init__.py"
    inside = [file for file in sorted([*folder.glob("*/__init__.py"), *folder.glob("src/*/__init__.py")])
              if file.parent.name != "tests"]  # fmt: skip
    if len(inside) != 1:
        raise UserError(f"--plugin {folder}: holds {len(inside)} packages, expected one; name the package's folder")
    return inside[0]


def _import_path(file: Path) -> ModuleType:
    """Import a file as the module that it would be if its folder were on the path: weights name their class so."""
    if not file.is_file():
        raise UserError(f"--plugin {file}: no such file")
    package = file.name == "__init__.py"
    name = file.parent.resolve().name if package else file.stem
    loaded = sys.modules.get(name)
    if loaded is not None:
        if Path(getattr(loaded, "__file__", None) or "").resolve() == file.resolve():
            return loaded
        raise UserError(
            f"--plugin {file}: a module {name!r} is loaded already; rename the {'folder' if package else 'file'}"
        )
    places = [str(file.parent.resolve())] if package else None
    spec = importlib.util.spec_from_file_location(name, file.resolve(), submodule_search_locations=places)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"--plugin {file}: {type(error).__name__}: {error}") from error
    return module


def _register(module: ModuleType) -> list[str]:
    """Put the module's own classes into the registries; their names."""
    from vgbench.data.dataset import GroundingData
    from vgbench.method import GroundingMethod
    from vgbench.metrics.base import GroundingMetric
    from vgbench.metrics.tasks import SUITE
    from vgbench.predictions.styles import OWN_STYLES
    from vgbench.predictions.styles.base import AnswerStyle
    from vgbench.probes.base import Probe

    kinds: tuple[tuple[type, Registry, Callable[[Any], str]], ...] = (
        (GroundingMethod, methods, lambda cls: cls.name),
        (GroundingData, datasets, lambda cls: cls.name),
        (GroundingMetric, metrics, lambda cls: cls.task.name),
        (Probe, probes, lambda cls: cls.name),
        (AnswerStyle, styles, lambda cls: cls.name),
    )
    names = []
    for value in list(vars(module).values()):
        if not inspect.isclass(value) or inspect.isabstract(value):
            continue
        if value.__module__.partition(".")[0] != module.__name__.partition(".")[0]:
            continue  # imported from elsewhere, e.g. a base class
        for kind, registry, name_of in kinds:
            if issubclass(value, kind):
                name = _choice(name_of(value))
                is_taken = name in registry and registry.load(name) is not value
                own = SUITE if registry is metrics else OWN_STYLES if registry is styles else ()
                if is_taken or name in own:
                    raise UserError(
                        f"--plugin {module.__name__}: there is a {registry.noun} {name!r} already; rename it"
                    )
                registry.add(name, value)
                names.append(name)
    return names


def _choice(title: str) -> str:
    """What is typed for a class called ``title``: "My-Method" is my-method."""
    return re.sub(r"[^a-z0-9_+.-]+", "_", title.lower())


def prepare(overrides: Sequence[str]) -> list[str]:
    """Make the choices that overrides name known to Hydra where the suite has no YAML for them.

    Returns:
        The overrides, and the plugins' configuration folders as one more.
    """
    for group, registry in GROUPS.items():
        choices = {
            name for item in overrides if item.startswith(f"{group}=") for name in item.partition("=")[2].split(",")
        }
        for name in sorted({*choices, *registry.added()}):
            if name in registry and not registry.is_own(name):
                _offer(group, name, registry.load(name))
    folders = config_folders()
    if not folders:
        return list(overrides)
    places = ",".join(f"'file://{folder}'" for folder in folders)
    return [*overrides, f"hydra.searchpath=[{places}]"]


_FOLDERS: dict[Path, None] = {}


def config_folders() -> list[Path]:
    """Configuration folders of the plugins in use."""
    return list(_FOLDERS)


def _offer(group: str, name: str, cls: type) -> None:
    """Let Hydra find ``group=name``: in the folder ``configs`` beside the class's package, else made from defaults."""
    from hydra.core.config_store import ConfigStore

    top = sys.modules[cls.__module__.partition(".")[0]]
    if getattr(top, "__file__", None):
        folder = Path(str(top.__file__)).resolve().parent / "configs"
        if folder.is_dir():
            _FOLDERS[folder] = None
        if (folder / group / f"{name}.yaml").is_file():
            return
    node = {"_target_": f"{cls.__module__}.{cls.__qualname__}", **defaults(cls)}
    ConfigStore.instance().store(name=name, group=group, node=node, provider="plugin")


def defaults(cls: type) -> dict[str, Any]:
    """The constructor's arguments that have a plain default; those of base classes too where it passes them on."""
    values: dict[str, Any] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base) or base is object:
            continue
        parameters = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
        for parameter in parameters:
            plain = isinstance(parameter.default, _SIMPLE) and parameter.default is not inspect.Parameter.empty
            if plain and parameter.name not in values:
                values[parameter.name] = parameter.default
        if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            break
    return values
