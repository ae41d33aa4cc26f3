"""`make chaos`: rounds of every scenario, and a table of what the applications noticed."""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import click

from tests.chaos.others import OTHERS
from tests.chaos.scenarios import SCENARIOS, Round
from tests.chaos.world import Kind, running_world


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", type=click.IntRange(1), default=20, show_default=True, help="Rounds of each scenario.")
@click.option("--scenario", "names", multiple=True, type=click.Choice(list(SCENARIOS)), help="Only this; repeatable.")
@click.option("--through", type=click.Choice(list(OTHERS)), help="Another proxy instead, for comparison.")
def main(rounds: int, names: Sequence[str], through: str | None) -> None:
    """Break a cluster under load, and compare what its applications were told with what is true."""
    done: dict[str, list[Round]] = {name: [] for name in names or SCENARIOS}
    for kind in Kind:
        chosen = [SCENARIOS[name] for name in done if SCENARIOS[name].kind is kind]
        if not chosen:
            continue
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pgamb-chaos-"))
            world = stack.enter_context(running_world(Path(folder), kind))
            if through is not None:
                other = stack.enter_context(OTHERS[through](world))
                world.dsn = partial(other.dsn, world.primary)
                world.on_promoted = other.point
            for scenario in chosen:
                for number in range(rounds):
                    click.echo(f"{scenario.name}, round {number + 1} of {rounds}", err=True)
                    try:
                        each = scenario.run(world)
                    except Exception:
                        click.echo("\n".join(world.client_log().splitlines()[-60:]), err=True)
                        raise
                    done[scenario.name].append(each)
                    for line in _noticed(each):
                        click.echo(f"    {line}", err=True)
    click.echo("\n".join(table(done)))
    sys.exit(any(each.wrong for rounds_done in done.values() for each in rounds_done))


def table(done: dict[str, list[Round]]) -> Iterable[str]:
    """Yield the lines of a Markdown table, a scenario a line."""
    yield (
        "| scenario | rounds | reads | writes | failed reads | dropped connections | errors of what was in flight "
        "| contradictions | median, and from to; longest statement |"
    )
    yield "| --- | ---: | ---: | ---: | ---: | ---: | --- | ---: | --- |"
    for name, rounds in done.items():
        others = Counter(
            failure.sqlstate or "ended"
            for each in rounds
            for failure in each.failures
            if failure not in each.failed_reads
        )
        words = ", ".join(f"{count} of {state}" for state, count in sorted(others.items())) or "none"
        yield (
            f"| {name} | {len(rounds)} | {sum(r.reads for r in rounds):,} | {sum(r.writes for r in rounds):,} "
            f"| {sum(len(r.failed_reads) for r in rounds)} | {sum(r.dropped + r.refused for r in rounds)} | {words} "
            f"| {sum(len(r.wrong) for r in rounds)} | {_figures(rounds)} |"
        )


def _figures(rounds: Sequence[Round]) -> str:
    parts = []
    for name in rounds[0].figures if rounds else ():
        values = [each.figures[name] for each in rounds]
        parts.append(f"{name} {statistics.median(values):.0f} ms ({min(values):.0f} to {max(values):.0f})")
    longest = max((value for each in rounds for value in each.longest_ms.values()), default=0.0)
    parts.append(f"longest {longest:.0f} ms")
    return "; ".join(parts)


def _noticed(done: Round) -> Iterable[str]:
    for failure in done.failures[:20]:
        yield f"{failure.what}: {failure.sqlstate or 'ended'}: {failure.message.splitlines()[0]}"
    yield from done.wrong[:20]
    yield _figures([done])


if __name__ == "__main__":
    main()
