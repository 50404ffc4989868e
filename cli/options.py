"""The frame of every command: shared option types, the common options, ``--config``, and the map of errors.

A command is a function whose first parameter is a `Session`; `command` adds the common options to its signature::

    @command("extract", examples=["rdx extract --model dino --dataset digits"])
    def extract(session: Session, model: ModelOption, ...) -> None:
        from rdxcli.representations import extract as service
        ...
        session.sink.result(str(artifact.path), document)
"""

import dataclasses
import errno
import functools
import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from keyword import iskeyword
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_origin, get_type_hints

import typer

from rdxcli.errors import RdxError, UsageError, did_you_mean
from rdxcli.options import REQUIRED, Option
from rdxcli.progress import human_bytes, human_seconds, set_asker

from .console import Sink
from .streams import INTERRUPTED, TERMINATED, Terminated

if TYPE_CHECKING:
    from rdxcli.services.base import Analysis, Outcome

COMMON = "Common"
FAILED, SAMPLES_FAILED = 1, 4


@dataclass
class Session:
    """What the common options say.

    Attributes
    ----------
    outputs : Path
        The outputs directory.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    run : str or None
        Name of the run; None means the method's name.
    sink : Sink
        Everything a command prints goes through it.
    """

    outputs: Path = Path("outputs")
    seed: int = 0
    device: str = "auto"
    run: str | None = None
    force: bool = False
    dry_run: bool = False
    debug: bool = False
    sink: Sink = field(default_factory=Sink)

    def plan(self, title: str, document: dict[str, Any]) -> None:
        """Print what would be done (``--dry-run``): a JSON document with ``--json``, else one line per entry."""
        lines = [title, *(f"  {_words(key)}: {_say(value, key)}" for key, value in document.items())]
        self.sink.result("\n".join(lines), {"plan": title, **document})

    def show(self, outcome: "Outcome", line: str | None = None) -> None:
        """Print a finished analysis: its summary for people, its artifact (or ``line``) or document as the result."""
        self.sink.summary(outcome)
        self.sink.result(line or str(outcome.artifact.path), outcome.document)

    def answer(self, title: str, analysis: "Analysis[Any]") -> Mapping[str, Any] | None:
        """Run an analysis and show it; with ``--dry-run`` say what it would do. The document, if there is one."""
        if self.dry_run:
            self.plan(title, analysis.plan())
            return None
        outcome = analysis.run()
        self.show(outcome)
        return outcome.document

    def ask(self, yes: bool) -> None:
        """Ask before hours of work, unless the answer is given; where nobody can be asked, say what would answer."""

        def asker(what: str) -> None:
            answers = "--yes goes on, --budget TIME gives every method that long, --method NAME takes one of them"
            if not (sys.stdin.isatty() and sys.stderr.isatty()):
                raise UsageError(f"{what}; there is nobody to ask", answers)
            if not typer.confirm(f"{what}. Go on?", default=False, err=True):
                raise UsageError("stopped before the work", answers)

        set_asker(None if yes else asker)

    def exit(self, code: int) -> None:
        """End with ``code``: 3 a gate was not met, 4 done but some samples failed."""
        raise typer.Exit(code)


@dataclass(frozen=True)
class Registered:
    """A command as the frame keeps it."""

    name: str
    function: Callable[..., None]
    help: str
    epilog: str
    examples: tuple[str, ...]


def _words(key: str) -> str:
    return key.replace("_bytes", "").replace("_seconds", " time").replace("bytes_on_disk", "on disk").replace("_", " ")


def _say(value: Any, key: str = "") -> str:
    if isinstance(value, int | float) and ("bytes" in key or key.endswith("_seconds")):
        return human_bytes(value) if "bytes" in key else human_seconds(value)
    if isinstance(value, Mapping) and "seconds" in key:
        return ", ".join(f"{name} {human_seconds(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def load_config(ctx: typer.Context, path: Path | None) -> Path | None:
    """Make the values of a YAML file the defaults of the running command; the command line still wins.

    Raises `UsageError` when the file is missing or malformed, or has a key that is no option of the command.
    """
    if path is None or ctx.resilient_parsing:
        return path
    import yaml

    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the configuration {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise UsageError(f"{path}: got a {type(content).__name__}, expected `option: value` lines")
    params = {param.name: param for param in ctx.command.params if param.name}
    spellings = {name.replace("_", "-"): name for name in params}
    for param in params.values():
        for spelling in param.opts:
            if spelling.startswith("--"):
                spellings[spelling.removeprefix("--")] = str(param.name)
    values: dict[str, Any] = {}
    for key, value in content.items():
        spelling = str(key).replace("_", "-")
        if spelling == "description":
            continue
        if spelling == "command":
            if value != ctx.command.name:
                raise UsageError(f"{path} is for `rdx {value}`, not for `rdx {ctx.command.name}`")
            continue
        if spelling not in spellings:
            raise UsageError(
                f"{path}: `{key}` is no option of `rdx {ctx.command.name}`",
                did_you_mean(spelling, spellings, f"`rdx {ctx.command.name} --help`"),
            )
        name = spellings[spelling]
        values[name] = _config_value(path, str(key), value, params[name])
        try:
            params[name].process_value(ctx, values[name])
        except typer.BadParameter as error:
            given = json.dumps(value, ensure_ascii=False, default=str)
            raise UsageError(f"{path}: `{key}`: got {given}: {error.message}") from None
    ctx.default_map = {**(ctx.default_map or {}), **values}
    return path


_NESTED = ("param", "file")


def _scalar(value: Any) -> str:
    """A value of YAML as the command line would have it."""
    return json.dumps(value) if value is None or isinstance(value, bool | list | dict) else str(value)


def _of_methods(values: Mapping[str, Any]) -> dict[str, Any]:
    """``kmeans: {n_init: 3}`` is ``kmeans.n_init: 3``; a mapping that is no method's is a value."""
    from rdxcli.methods.registry import names

    flat: dict[str, Any] = {}
    for name, item in values.items():
        own = isinstance(item, dict) and str(name).replace("_", "-") in names("compare")
        flat |= {f"{name}.{key}": one for key, one in item.items()} if own else {name: item}
    return flat


def _config_value(path: Path, key: str, value: Any, param: Any) -> Any:
    multiple = bool(getattr(param, "multiple", False)) or getattr(param, "nargs", 1) != 1
    if isinstance(value, list):
        # a comma-separated option may be written as a YAML list
        return [str(item) for item in value] if multiple else ",".join(map(str, value))
    if isinstance(value, dict) and key.replace("-", "_") in _NESTED:
        # `param:` and `file:` may be written as a mapping
        pairs = value
        if any(isinstance(item, dict) for item in value.values()):
            pairs = _of_methods(value)
        return [f"{name}={_scalar(item)}" for name, item in pairs.items()]
    if isinstance(value, dict):
        raise UsageError(f"{path}: `{key}` has nested values, expected one value or a list")
    if getattr(param, "is_flag", False):
        if not isinstance(value, bool):
            raise UsageError(f"{path}: `{key}` is a switch, got {value!r}, expected true or false")
        return value
    if value is None:
        return None
    return [str(value)] if multiple else str(value)


_COMMON_PARAMETERS: list[tuple[str, Any, Any]] = [
    (
        "outputs",
        Annotated[
            Path,
            typer.Option(
                "--outputs",
                envvar="RDX_OUTPUTS",
                help="Outputs directory.",
                rich_help_panel=COMMON,
            ),
        ],
        Path("outputs"),
    ),
    ("seed", Annotated[int, typer.Option("--seed", min=0, help="Random seed.", rich_help_panel=COMMON)], 0),
    (
        "device",
        Annotated[
            str, typer.Option("--device", envvar="RDX_DEVICE", help="auto, cpu, cuda or mps.", rich_help_panel=COMMON)
        ],
        "auto",
    ),
    (
        "config",
        Annotated[
            Path | None,
            typer.Option(
                "--config",
                callback=load_config,
                is_eager=True,
                help="YAML file of option values; the command line wins.",
                rich_help_panel=COMMON,
            ),
        ],
        None,
    ),
    (
        "run",
        Annotated[
            str | None,
            typer.Option("--run", help="Name of this run (default: the method's name).", rich_help_panel=COMMON),
        ],
        None,
    ),
    (
        "force",
        Annotated[bool, typer.Option("--force", help="Make it again and replace it.", rich_help_panel=COMMON)],
        False,
    ),
    (
        "wait",
        Annotated[
            str | None,
            typer.Option(
                "--wait",
                help="Seconds to wait for others that make the same thing, or `forever`.",
                rich_help_panel=COMMON,
            ),
        ],
        None,
    ),
    (
        "engine",
        Annotated[
            str,
            typer.Option(
                "--engine",
                help="auto, local, ranks or ray: where images run through models.",
                rich_help_panel=COMMON,
            ),
        ],
        "auto",
    ),
    (
        "address",
        Annotated[str | None, typer.Option("--address", help="Of a running Ray cluster.", rich_help_panel=COMMON)],
        None,
    ),
    (
        "dry_run",
        Annotated[
            bool, typer.Option("--dry-run", help="Say what would be done, touch nothing.", rich_help_panel=COMMON)
        ],
        False,
    ),
    (
        "as_json",
        Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.", rich_help_panel=COMMON)],
        False,
    ),
    (
        "quiet",
        Annotated[bool, typer.Option("--quiet", "-q", help="Warnings and errors only.", rich_help_panel=COMMON)],
        False,
    ),
    ("verbose", Annotated[bool, typer.Option("--verbose", "-v", help="Details.", rich_help_panel=COMMON)], False),
    (
        "debug",
        Annotated[
            bool,
            typer.Option("--debug", envvar="RDX_DEBUG", help="Show tracebacks.", rich_help_panel=COMMON),
        ],
        False,
    ),
]

_NOT_FETCHED = ("dataset", "images", "root", "mirror", "base_url", "address")
"""Options whose addresses are read where they are, or are no files."""

_SHARING = ("engine", "address")
"""Common options of commands that wait for others only."""

_OF_SESSION = ("outputs", "run", "seed", "device", "force")
"""Fields of options classes that the common options fill."""


def declared_options(kind: type, left_out: Sequence[str] = ()) -> list[inspect.Parameter]:
    """The options of a command that an options class declares (see `rdxcli.options`), nested classes included."""
    unseen: dict[str, Any] = {"Representation": str}  # what only Python passes
    hints = get_type_hints(kind, localns=unseen, include_extras=True)
    found = []
    for part in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[part.name]):
            found += declared_options(hints[part.name], left_out)
        elif "option" in part.metadata and part.name not in left_out:
            found.append(_declared(part, hints[part.name]))
    return found


def _declared(part: dataclasses.Field[Any], hint: Any) -> inspect.Parameter:
    shown: Option = part.metadata["option"]
    needed = part.default is REQUIRED and part.default_factory is REQUIRED
    multiple = shown.read in ("pairs", "parameters", "each") or (get_origin(hint) is Sequence and part.default == ())
    default = None if multiple or part.default in (REQUIRED, "") else part.default
    kind: Any = hint
    if multiple:
        kind = list[str] if needed else list[str] | None
    elif shown.type is not None:
        kind = shown.type if needed else shown.type | None
    more: dict[str, Any] = {"help": shown.help, "rich_help_panel": shown.panel}
    if shown.complete is not None:
        more["autocompletion"] = _completion(shown.complete)
    if shown.low is not None:
        more["min"] = shown.low
    if shown.argument:
        annotation: Any = Annotated[kind, typer.Argument(show_default=False, **more)]
        unset = inspect.Parameter.empty if needed else None
        return inspect.Parameter(part.name, inspect.Parameter.KEYWORD_ONLY, default=unset, annotation=annotation)
    names = shown.names or (f"--{part.name.replace('_', '-')}",)
    annotation = Annotated[kind, typer.Option(*names, show_default=not needed, **more)]
    return inspect.Parameter(
        _field_name(part),
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if needed else default,
        annotation=annotation,
    )


def _field_name(part: dataclasses.Field[Any]) -> str:
    """Name of the option's variable: that of its first spelling, as ``--config`` files have it."""
    shown: Option = part.metadata["option"]
    first = shown.names[0].partition("/")[0] if shown.names else part.name
    name = first.lstrip("-").replace("-", "_")
    return part.name if iskeyword(name) else name


def build(kind: type, values: Mapping[str, Any], session: Session) -> Any:
    """An options class from what the command line gave, the common options and standard input.

    A list of them where one option may be repeated for several runs of the command.
    """
    hints = get_type_hints(kind, localns={"Representation": str})
    given: dict[str, Any] = {}
    for part in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[part.name]):
            given[part.name] = build(hints[part.name], values, session)
        elif part.name in _OF_SESSION:
            given[part.name] = getattr(session, part.name)
        elif "option" in part.metadata:
            shown: Option = part.metadata["option"]
            name = part.name if shown.argument else _field_name(part)
            if name in values:
                given[part.name] = _read(shown.read, values[name], part)
    each = next((p.name for p in dataclasses.fields(kind) if p.metadata.get("option", _NONE).read == "each"), None)
    if each is not None:
        return [kind(**{**given, each: value}) for value in given[each]]
    return kind(**given)


_NONE = Option("")


def _read(how: str | None, value: Any, part: dataclasses.Field[Any]) -> Any:
    if how == "pairs":
        return file_pairs(value)
    if how == "parameters":
        return method_parameters(value)
    if how == "stdin":
        return read_stdin(value) if value is not None else None
    return tuple(value or ()) if part.default == () or how == "each" else value


def _completion(what: str) -> Callable[..., list[str]]:
    name, _, which = what.partition(":")
    if name == "methods":
        return complete_methods(which)
    return layers_of(which or "model") if name == "layers" else _COMPLETIONS[name]


_commands: dict[str, Registered] = {}


def command(
    name: str,
    examples: Sequence[str],
    without: Sequence[str] = (),
    options: type | None = None,
    own: Sequence[str] = (),
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command and give it the common options.

    Parameters
    ----------
    name : str
        As typed, for example ``encode-concepts``.
    examples : sequence of str
        Two or three complete command lines that end its ``--help``.
    without : sequence of str
        Common options that mean nothing to this command, for example ``("run", "force")``.
    options : type, optional
        Options class (see `rdxcli.options`) whose fields are options of the command; an instance is passed as
        ``options``.
    own : sequence of str
        Fields of it that the function takes itself, or that the command does not have.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(function, eval_str=True)
        parameters = [p for p in signature.parameters.values() if p.annotation is not Session and p.name != "options"]
        if options is not None:
            parameters = [*parameters, *declared_options(options, own)]
            # arguments come first, and what must be given before what may
            parameters.sort(key=lambda p: p.default is not inspect.Parameter.empty)
        taken = {p.name for p in parameters}
        extra = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for key, annotation, default in _COMMON_PARAMETERS
            if key not in taken and key not in without and not (key in _SHARING and "wait" in without)
        ]
        positional = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]

        @functools.wraps(function)
        def wrapper(**values: Any) -> None:
            session = _session({key: values.pop(key, default) for key, _, default in _COMMON_PARAMETERS})

            def run() -> None:
                given = {key: value if key in _NOT_FETCHED else _here(value) for key, value in values.items()}
                if options is None:
                    return function(session, **given)
                mine = {key: given[key] for key in signature.parameters if key in given}
                return function(session, options=build(options, given, session), **mine)

            with_errors(session, run)

        wrapper.__signature__ = inspect.Signature([*positional, *extra])  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in [*positional, *extra]}
        del wrapper.__wrapped__  # type: ignore[attr-defined]  # Typer must see the new signature, not the inner one
        epilog = "\n\n".join(["[bold]Examples[/bold]", *(f"  {example}" for example in examples)])
        # the terminal breaks the lines of a paragraph, not the source
        text = "\n\n".join(" ".join(part.split()) for part in (inspect.getdoc(function) or "").split("\n\n"))
        _commands[name] = Registered(name, wrapper, text, epilog, tuple(examples))
        return function

    return decorate


def _here(value: Any) -> Any:
    """Files at addresses (``s3://`` ...) as local copies."""
    parts = value if isinstance(value, list | tuple) else [value]
    if not any(isinstance(part, str | Path) and ":/" in str(part) for part in parts):
        return value
    from rdxcli.datasets.addresses import localised

    return localised(value)


def registered() -> dict[str, Registered]:
    """Every command by name."""
    return _commands


def _set_wait(given: str | None) -> None:
    """``--wait SECONDS|forever``, for this process."""
    if given is None:
        return
    from rdxcli.artifacts import set_wait

    try:
        seconds = float("inf") if given == "forever" else float(given)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise UsageError(f"--wait: got `{given}`, expected seconds, or `forever`")
    set_wait(seconds)


def _session(common: dict[str, Any]) -> Session:
    verbosity = -1 if common["quiet"] else 1 if common["verbose"] else 0
    sink = Sink(as_json=common["as_json"], verbosity=verbosity)
    sink.install()
    _set_wait(common["wait"])
    if (common["engine"], common["address"]) != ("auto", None):
        from rdxcli.engines.sharing import set_engine

        set_engine(common["engine"], common["address"])
    return Session(
        outputs=common["outputs"],
        seed=common["seed"],
        device=common["device"],
        run=common["run"],
        force=common["force"],
        dry_run=common["dry_run"],
        debug=common["debug"],
        sink=sink,
    )


def with_errors(session: Session, action: Callable[[], None]) -> None:
    """Run ``action``; whatever it raises becomes one or two lines and an exit code, never a traceback.

    `RdxError` carries its own code. ``ValueError`` is how methods refuse arrays. Anything else is a defect of rdx and
    says so. With ``--debug`` the traceback is printed first.
    """

    def traced() -> None:
        try:
            action()
        except typer.Exit:
            raise
        except BaseException:
            if session.debug:
                session.sink.traceback()
            raise

    try:
        traced()
    except typer.Exit:
        raise
    except RdxError as error:
        session.sink.error(error.message, error.hint)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt as stop:
        ended = isinstance(stop, Terminated)
        session.sink.error(
            "asked to end (SIGTERM)" if ended else "interrupted",
            "the same command continues where it stopped, where the work can be continued",
        )
        raise typer.Exit(TERMINATED if ended else INTERRUPTED) from None
    except BrokenPipeError:
        # the reader of our output has gone: nothing is left to be said
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(FAILED) from None
    except MemoryError:
        session.sink.error("out of memory", "use fewer samples with --sample N, or a machine with more memory")
        raise typer.Exit(FAILED) from None
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        session.sink.error(
            f"{error.strerror or error}{where}",
            "free some space, or choose another place with --outputs" if full else None,
        )
        raise typer.Exit(FAILED) from None
    except ValueError as error:
        session.sink.error(" ".join(str(error).split()))
        raise typer.Exit(FAILED) from None
    except Exception as error:
        text = " ".join(str(error).split())[:400]
        missing = isinstance(error, ImportError) and not (error.name or "rdxcli").startswith("rdxcli")
        if missing or "operator torchvision::" in text:  # a package is missing, or two do not fit together
            session.sink.error(f"a package that rdx needs does not load: {text}", "`rdx doctor` says what repairs it")
            raise typer.Exit(FAILED) from None
        if isinstance(error, RuntimeError) and "home directory" in text:  # a path that begins with `~`
            session.sink.error(text, "set HOME, or give the path without `~`")
            raise typer.Exit(FAILED) from None
        session.sink.error(
            f"unexpected {type(error).__name__}: {text}",
            "this is a defect of rdx: run it again with --debug and report the traceback",
        )
        raise typer.Exit(FAILED) from None


def complete_models(incomplete: str) -> list[str]:
    """Shell completion of model names."""
    from rdxcli.models.registry import list_models

    return [name for name in list_models() if name.startswith(incomplete)]


def complete_datasets(incomplete: str) -> list[str]:
    """Shell completion of data set names."""
    from rdxcli.datasets.registry import list_datasets

    return [name for name in list_datasets() if name.startswith(incomplete)]


def complete_methods(family: str) -> Callable[[str], list[str]]:
    """Shell completion of the methods of one command."""

    def complete(incomplete: str) -> list[str]:
        from rdxcli.methods.registry import names

        return [name for name in [*names(family), "all"] if name.startswith(incomplete)]

    return complete


def layers_of(field: str) -> Callable[..., list[str]]:
    """Shell completion of the layers of the model that stands in a field of the command line."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        from rdxcli.models import load

        # the arguments are not read yet while the option after them has no value
        arguments = dict(zip("ab", ctx.args, strict=False))
        model = ctx.params.get(field) or arguments.get(field)
        name = model[0] if isinstance(model, list | tuple) else model
        try:
            layers = load(name, untrained=True).layers() if name else []
        except RdxError:
            return []
        return [layer.path for layer in layers if layer.path.startswith(incomplete)]

    return complete


complete_layers = layers_of("model")


_COMPLETIONS: dict[str, Callable[..., list[str]]] = {"models": complete_models, "datasets": complete_datasets}


def file_pairs(given: list[str] | None) -> dict[str, str]:
    """``NAME=PATH`` pairs of ``--file``."""
    pairs: dict[str, Any] = {}
    for pair in given or []:
        name, equals, path = pair.partition("=")
        if not equals or not name or not path:
            raise UsageError(f"--file takes NAME=PATH, got `{pair}`")
        pairs[name.strip()] = path
    return pairs


def method_parameters(given: list[str] | None) -> dict[str, Any]:
    """``NAME=VALUE`` pairs, values read as YAML scalars.

    Raises `UsageError` (a pair without a name or an equals sign).
    """
    import yaml

    values: dict[str, Any] = {}
    for pair in given or []:
        name, equals, text = pair.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"--param takes NAME=VALUE, got `{pair}`")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        values[name.strip().replace("-", "_")] = value
    return values


def read_stdin(value: str) -> str:
    """``-`` stands for a path on standard input, so that commands pipe."""
    if value != "-":
        return value
    for line in sys.stdin:
        if line.strip():
            return line.strip()
    raise UsageError("`-` reads a path from standard input, which is empty")


LogOption = Annotated[
    str | None,
    typer.Option(
        "--log",
        help="Log the result to a tracker: mlflow:URI, wandb:PROJECT or trackio:PROJECT.",
        rich_help_panel=COMMON,
    ),
]

YesOption = Annotated[
    bool,
    typer.Option("--yes", "-y", help="With --method all: do not ask before hours of work.", rich_help_panel=COMMON),
]
