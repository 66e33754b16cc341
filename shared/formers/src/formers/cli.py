"""The command line of the workbench."""

import contextlib
import functools
import json
import sys
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from formers.figures import duration, entry, mebibytes, published, si

app = typer.Typer(
    help="List, show, verify, reproduce and bench the papers that are installed.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

PaperName = Annotated[str, typer.Argument(metavar="PAPER", help="A name that `list` shows.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, ...")]

Output = Annotated[
    Path, typer.Option(help="Results go to OUTPUT/PAPER; docs/results is what the site shows.")
]

MARKS = {
    "holds": "[green]✓ holds[/]",
    "fails": "[red]✗ fails[/]",
    "error": "[yellow]! error[/]",
    "not run": "[dim]· not run[/]",
}


def main() -> None:
    """Entry point of the ``formers`` script."""
    app()


@app.command("list")
def list_papers(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    results: Annotated[
        list[Path] | None,
        typer.Option(help="A folder of recorded results; may be given more than once."),
    ] = None,
) -> None:
    """List every paper with its domain, year, variants and what is known of its claims."""
    from formers.registry import installed

    rows = [_overview(found, _roots(results)) for found in installed()]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    if not rows:
        _console().print("no papers are installed; each is a package of its own: formers-<paper>")
        return
    table = Table("paper", "domain", "year", "variants", "held", "failed", "not run")
    for row in rows:
        if "error" in row:
            table.add_row(row["paper"], "[red]error[/]")
            continue
        claims = row["claims"]
        failed = str(claims["failed"]) + (f" ({claims['error']} error)" if claims["error"] else "")
        table.add_row(
            row["paper"],
            row["domain"],
            str(row["year"]),
            str(len(row["variants"])),
            str(claims["held"]),
            failed,
            str(claims["not run"]),
        )
    console = _console()
    console.print(table)
    for row in rows:
        if "error" in row:
            console.print(f"[red]error:[/] {escape(row['error'])}", highlight=False)


@app.command()
def show(name: PaperName) -> None:
    """Show one paper: identity, variants with parameters and FLOPs, claims, commands, BibTeX."""
    paper = _find(name)
    console = _console()
    link = f"arXiv {paper.arxiv}" if paper.arxiv else "no arXiv number"
    console.print(f"[bold]{escape(paper.title)}[/]", highlight=False)
    console.print(f"{escape(paper.authors)} · {escape(published(paper))} · {link}")
    console.print(f"{paper.domain} · authors' code: {escape(paper.official)}")
    console.print(f"\n{escape(paper.summary)}\n")
    if paper.variants:
        console.print(_variants(paper))
    if paper.claims:
        table = Table("claim", "statement", "source", "paper says", "cost", title="claims")
        for claim in paper.claims:
            row = (claim.id, claim.statement, claim.source, claim.paper_says, claim.cost)
            table.add_row(*map(escape, row))
        console.print(table)
    for what, command in paper.commands.items():
        console.print(f"[dim]# {escape(what)}[/]\n{escape(command)}", highlight=False)
    print(f"\n{paper.bibtex.strip()}")


@app.command()
def verify(
    name: PaperName,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A file of the authors' weights to identify.")
    ] = None,
) -> None:
    """Check the package against the authors' code: golden cases, parameter counts, your file."""
    from attention_core import CheckpointError

    from formers.verify import check_cases, count_variants, identify

    paper = _find(name)
    console = _console()
    failed = False

    table = Table("case", "outputs", "farthest", "deviation", "tolerance", "", title="golden cases")
    with _progress() as progress:
        for case in progress(check_cases(paper), "golden cases"):
            failed |= not case.passed
            if case.error:
                table.add_row(case.case, "", escape(case.error), "", "", _mark(False))
                continue
            figures = (f"{case.deviation:.1e}", f"{case.tolerance:.0e}")
            table.add_row(
                case.case, str(case.outputs), escape(case.output), *figures, _mark(case.passed)
            )
    console.print(table if table.row_count else f"{name} carries no golden cases")

    table = Table("variant", "parameters", "expected", "", title="parameter counts")
    for count in count_variants(paper):
        failed |= not count.passed
        counted = "no such variant" if count.counted is None else f"{count.counted:,}"
        table.add_row(count.variant, counted, f"{count.expected:,}", _mark(count.passed))
    console.print(table if table.row_count else f"{name} names no parameter counts")

    if checkpoint is not None:
        try:
            found = identify(paper, checkpoint)
        except (CheckpointError, FileNotFoundError) as error:
            _fail(str(error), code=2 if isinstance(error, FileNotFoundError) else 1)
        failed |= not found.passed
        if not found.passed:
            console.print(f"{_mark(False)} {checkpoint} ({found.entries} tensors) fits no network:")
            for reason in found.errors:
                console.print(f"  {reason}", markup=False, highlight=False)
        else:
            which = " or ".join(found.variants) or f"no published size: {found.differences}"
            console.print(
                f"{_mark(True)} {checkpoint} is {found.model}, {escape(which)}: all "
                f"{found.entries} tensors accounted for, {found.weights:,} parameters"
            )
    raise typer.Exit(int(failed))


@app.command()
def reproduce(
    name: PaperName,
    claim: Annotated[
        list[str] | None, typer.Option(help="Only this claim; may be given more than once.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Up to 20 minutes a claim instead of seconds.")
    ] = False,
    output: Output = Path("runs"),
    device: Device = "cpu",
    seed: int = 0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure again what is already recorded.")
    ] = False,
) -> None:
    """Measure the paper's claims and compare with what the paper says."""
    paper = _find(name)
    _measure(paper, claim, full=full, output=output, device=device, seed=seed, fresh=fresh)


@app.command()
def compare(
    domain: Annotated[str, typer.Argument(help="super-resolution, ...")],
    study: Annotated[
        list[str] | None, typer.Option(help="Only this study; may be given more than once.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="The large budget.")] = False,
    output: Output = Path("runs"),
    device: Device = "cpu",
    seed: int = 0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure again what is already recorded.")
    ] = False,
) -> None:
    """Measure the installed papers of a domain side by side."""
    from formers.comparisons import comparison

    try:
        subject = comparison(domain)
    except ValueError as error:
        _fail(str(error))
    _measure(subject, study, full=full, output=output, device=device, seed=seed, fresh=fresh)


def _measure(
    subject: Any, names: list[str] | None, *, output: Path, device: str, **options: Any
) -> NoReturn:
    """Measure claims of a paper, or studies of a comparison, and print what was found."""
    from formers import reproduce as reproduction

    device = _device(device)
    try:
        claims = [subject.claim(name) for name in names] if names else list(subject.claims)
    except ValueError as error:
        _fail(str(error))
    outcomes = []
    with _progress() as progress:
        steps = reproduction.reproduce(
            subject, claims, root=output, progress=progress, device=device, **options,
            announce=lambda claim: progress.say(f"[dim]measuring {claim.id} ({claim.cost})[/]"),
        )  # fmt: skip
        try:
            for outcome in progress(steps, "claims", total=len(claims)):
                outcomes.append(outcome)
                progress.say(_progress_line(outcome))
        except (OSError, ValueError) as error:  # the results file, not a claim
            _fail(str(error))
    _print_outcomes(outcomes, output / subject.slug)
    raise typer.Exit(int(any(outcome.status == "error" for outcome in outcomes)))


@app.command()
def bench(
    name: PaperName,
    variant: Annotated[str | None, typer.Option(help="The package's choice by default.")] = None,
    device: Device = "cpu",
    dtype: Annotated[
        str, typer.Option(help="float32, or bfloat16 or float16 under autocast.")
    ] = "float32",
    compiled: Annotated[bool, typer.Option("--compile", help="Both sides compiled.")] = False,
    sizes: Annotated[str | None, typer.Option(help="Such as 64,128,256.")] = None,
    batch: Annotated[int, typer.Option(min=1)] = 1,
    backward: Annotated[bool, typer.Option("--backward", help="Forward and backward.")] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Of timing, per size.")] = 15,
    output: Output = Path("runs"),
) -> None:
    """Measure latency, throughput, memory and FLOPs over input sizes, beside a baseline."""
    from formers import bench as benchmarking
    from formers.records import bench_records, cpu_cores, environment, package_version
    from formers.registry import entry_points

    paper = _find(name)
    if paper.benchmark is None or paper.inputs is None:
        _fail(f"{name} names no benchmark")
    variant = variant or paper.benchmark.variant
    if variant not in paper.variants:
        _fail(f"{name} has no variant {variant!r}; it has {', '.join(paper.variants)}")
    if dtype not in benchmarking.DTYPES:
        _fail(f"--dtype {dtype}: must be one of {', '.join(benchmarking.DTYPES)}")
    how = benchmarking.Circumstances(
        variant=variant, batch=batch, device=_device(device), dtype=dtype, compile=compiled,
        backward=backward,
    )  # fmt: skip
    wanted = _sizes(sizes) if sizes else paper.benchmark.sizes
    records = bench_records(output, paper.slug)
    where = environment()  # before the measurement adds to the load
    if where["load"] > cpu_cores():
        _complain(
            f"this machine is busy (load {where['load']} on {cpu_cores()} cores): "
            "do not trust its times",
            "warning",
        )
    try:
        records.read()  # a damaged file is told before the measurement, not after
        with _progress() as progress:
            record = benchmarking.bench(
                paper, how, wanted, entry=entry_points()[name], rounds=rounds, progress=progress
            )
        picture = f"bench-{'-'.join(_words(how))}.png"
        record |= {
            "figure": picture,
            "version": package_version(paper.slug),
            **where,
        }
        benchmarking.plot(record, records.path.parent / picture)
        records.add(record)
    except (OSError, ValueError, RuntimeError) as error:
        _fail(" ".join(str(error).split()))
    _print_bench(record)
    print(f"results: {records.path}\nfigure: {records.path.parent / picture}")


@app.command()
def report(
    results: Annotated[
        Path, typer.Option(help="Recorded results: RESULTS/PAPER/reproduce.json and bench.json.")
    ] = Path("docs/results"),
    docs: Annotated[Path, typer.Option(help="Pages go to DOCS/papers.")] = Path("docs"),
) -> None:
    """Write recorded results as Markdown pages; the site's build makes the same ones by itself."""
    from formers.registry import installed
    from formers.report import write

    papers = list(installed())
    try:
        for path in write(papers, results, docs):
            print(path)
    except (OSError, ValueError) as error:
        _fail(str(error))
    broken = [found.error for found in papers if found.paper is None]
    for reason in broken:
        _complain(reason)
    raise typer.Exit(int(bool(broken)))


@app.command()
def new(
    slug: Annotated[str, typer.Argument(metavar="SLUG", help="The import name.")],
    title: Annotated[str, typer.Option(help="The paper's title.")],
    domain: Annotated[str, typer.Option(help="forecasting, vision, super-resolution, ...")],
    into: Annotated[Path, typer.Option(help="The folder of packages.")] = Path("packages"),
) -> None:
    """Write a package for another paper: complete and working, to be turned into the paper."""
    from formers.new import scaffold

    try:
        home = scaffold(slug, title=title, domain=domain, into=into)
    except (OSError, ValueError) as error:
        _fail(str(error))
    print(
        f"{home} is written. Next:\n"
        f"  uv sync --all-packages --all-extras\n"
        f"  uv run pytest {home}\n"
        f"  uv run formers reproduce {slug}"
    )


def _overview(found: Any, roots: list[Path]) -> dict[str, Any]:
    from formers.records import latest_claims

    paper = found.paper
    if paper is None:
        return {"paper": found.name, "error": found.error}
    try:
        records = latest_claims(paper.slug, roots)
    except ValueError as error:
        return {"paper": found.name, "error": str(error)}
    states = [records[c.id]["status"] if c.id in records else "not run" for c in paper.claims]
    names = {"holds": "held", "fails": "failed", "error": "error", "not run": "not run"}
    return {
        "paper": found.name,
        "title": paper.title,
        "domain": paper.domain,
        "year": paper.year,
        "venue": paper.venue,
        "variants": list(paper.variants),
        "claims": {name: states.count(state) for state, name in names.items()},
    }


def _variants(paper: Any) -> Table:
    import torch
    from attention_core import count_parameters, flops_of

    usual = None if paper.benchmark is None else paper.benchmark.usual
    table = Table("variant", "parameters", "FLOPs", "forward of", title="variants")
    for name, config in paper.variants.items():
        with torch.device("meta"):
            parameters = count_parameters(paper.build(config))
        flops, shapes = "-", ""
        if paper.inputs is not None:
            build = functools.partial(paper.build, config)
            inputs = functools.partial(paper.inputs, config, usual, 1)
            flops = si(flops_of(build, inputs))
            with torch.device("meta"):
                sizes = {key: "×".join(map(str, x.shape)) for key, x in inputs().items()}
            shapes = ", ".join(f"{key} {size}" for key, size in sizes.items())
        table.add_row(name, f"{parameters:,}", flops, shapes)
    return table


def _progress_line(outcome: Any) -> str:
    record = outcome.record
    if record is None:
        return f"{MARKS['not run']} {outcome.claim.id}"
    when = f"kept from {record['date'][:10]}" if outcome.kept else f"{record['seconds']:.1f} s"
    return f"{MARKS[outcome.status]} {outcome.claim.id} [dim]({when})[/]"


def _print_outcomes(outcomes: list[Any], folder: Path) -> None:
    from formers.reproduce import tables

    console = _console()
    table = Table("claim", "paper says", "measured", "holds")
    for outcome in outcomes:
        claim, record = outcome.claim, outcome.record
        measured = record["measured"] if record else f"not run here ({claim.cost})"
        table.add_row(
            f"[bold]{claim.id}[/]\n{escape(claim.statement)}",
            f"{escape(claim.paper_says)}\n[dim]{escape(claim.source)}[/]",
            escape(measured),
            MARKS[outcome.status],
        )
    console.print(table)
    for outcome in outcomes:
        claim, record = outcome.claim, outcome.record
        if record is None:
            console.print(f"{claim.id}, not run here:", highlight=False)
            print(f"  {claim.command}")
            continue
        for extra in tables(record):
            columns = [escape(str(column)) for column in extra["columns"]]
            shown = Table(*columns, title=extra.get("title") or claim.id)
            for row in extra["rows"]:
                shown.add_row(*(escape(entry(value)) for value in row))
            console.print(shown)
        if record.get("note"):
            console.print(f"{claim.id}: {escape(record['note'])}", highlight=False)
    kept = sum(outcome.kept for outcome in outcomes)
    if kept:
        console.print(f"{kept} kept from an earlier run; --fresh measures again", highlight=False)
    if any(outcome.record for outcome in outcomes):
        print(f"results: {folder / 'reproduce.json'}")
    for outcome in outcomes:
        for figure in (outcome.record or {}).get("figures", ()):
            print(f"figure: {folder / figure}")
        if outcome.status == "error":
            print(f"traceback: {folder / outcome.claim.id / 'error.txt'}")


def _words(how: Any) -> list[str]:
    """What tells a benchmark from others, for a file name and a title."""
    flags = [flag for flag in ("compile", "backward") if getattr(how, flag)]
    batch = [f"batch{how.batch}"] if how.batch > 1 else []
    return [how.variant, how.device.replace(":", ""), how.dtype, *batch, *flags]


def _sizes(text: str) -> list[int]:
    try:
        sizes = sorted({int(part) for part in text.replace(",", " ").split()})
    except ValueError:
        sizes = []
    if not sizes or sizes[0] < 1:
        _fail(f"--sizes {text}: must be integers of at least 1, such as 64,128,256")
    return sizes


def _print_bench(record: dict[str, Any]) -> None:
    console = _console()
    ours, *rest = record["sides"]
    columns = ["latency", "throughput", "memory", "FLOPs", "of matmul"]
    for side in (ours, *rest):
        table = Table(record["axis"], *columns, title=side["name"])
        for point in side["points"]:
            table.add_row(
                str(point["size"]),
                duration(point["latency"]),
                f"{si(point['throughput'])}/s",
                mebibytes(point["memory"]),
                si(point["flops"]),
                f"{point['matmul_share']:.0%}",
            )
        console.print(table)
        for quantity, exponent in side["growth"].items():
            quantity = quantity.replace("flops", "FLOPs")
            console.print(f"{side['name']}: {quantity} ~ {record['axis']}^{exponent:.2f}")
    for point in record["speedup"]:
        size, times = f"{record['axis']} {point['size']}", f"{point['median']:.2f} times"
        spread = f"median of pairs; {point['least']:.2f} to {point['most']:.2f}"
        console.print(f"{size}: {rest[0]['name']} takes {times} as long ({spread})")
    console.print(
        f"matmul here: {si(record['matmul_rate'])}FLOP/s in {record['dtype']} "
        f"({record['hardware']}, {record['threads']} threads)"
    )


def _mark(passed: bool) -> str:
    return "[green]✓[/]" if passed else "[red]✗[/]"


def _find(name: str) -> Any:
    from formers.registry import PaperError, find

    try:
        return find(name)
    except ValueError as error:
        _fail(str(error))
    except PaperError as error:
        _fail(str(error), code=1)


def _device(name: str) -> str:
    import torch

    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        _fail(f"--device {name}: {str(error).splitlines()[0]}")
    return name


def _roots(results: list[Path] | None) -> list[Path]:
    from formers.records import PUBLISHED, WORKING

    return results or [PUBLISHED, WORKING]


class Bars:
    """Wraps iterables in progress bars of one display; what ``Run.progress`` is."""

    def __init__(self, display: Progress) -> None:
        self.display = display

    def __call__(
        self, steps: Iterable[Any], description: str, total: int | None = None
    ) -> Iterator[Any]:
        if total is None and isinstance(steps, Sized):
            total = len(steps)
        task = self.display.add_task(description, total=total)
        try:
            for step in steps:
                yield step
                self.display.advance(task)
        finally:
            self.display.remove_task(task)

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self.display.console.print(line, highlight=False)


@contextlib.contextmanager
def _progress() -> Iterator[Bars]:
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as display:
        yield Bars(display)


def _console() -> Console:
    """Standard output; a pipe is not a terminal of 80 columns, so nothing is cut there."""
    return Console(width=None if sys.stdout.isatty() else 160)


def _complain(message: str, kind: str = "error") -> None:
    text = f"[red]{kind}:[/] {escape(message)}"
    Console(stderr=True).print(text, highlight=False, soft_wrap=True)


def _fail(message: str, code: int = 2) -> Any:
    _complain(message)
    raise typer.Exit(code)
