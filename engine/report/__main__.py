"""``python -m engine.report``: pages and tables from studies that are on disk."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from engine.errors import UsageError
from engine.report.studies import SWEEPS
from engine.strategy import nearest

EXAMPLES = """\
A study is given by its folder or by its name under outputs/sweeps.

  python -m engine.report page mine                the study's report.html, from its files
  python -m engine.report table mine               the front as a Markdown table
  python -m engine.report compare mine other       table, compare.html, compare.csv, compare.tex
  python -m engine.report blind mine --trial 7     blind.html: vote without knowing which is which
  python -m engine.report votes votes.json         what saved votes say, with an interval
"""


class _Parser(argparse.ArgumentParser):
    """argparse offers no other way than this method to raise a plain error."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see python -m engine.report --help")


def _parser() -> tuple[_Parser, dict[str, Callable[[argparse.Namespace], None]]]:
    parser = _Parser(
        prog="python -m engine.report",
        description="Pages and tables from studies that are on disk.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    here = _Parser(add_help=False)
    here.add_argument(
        "--sweeps", type=Path, default=SWEEPS, help="folder of all studies (default: %(default)s)"
    )
    page = commands.add_parser("page", parents=[here], help="write report.html again")
    page.add_argument("study", nargs="+", metavar="STUDY")
    table = commands.add_parser("table", parents=[here], help="a front as a Markdown table")
    table.add_argument("study", nargs="+", metavar="STUDY")
    compare = commands.add_parser("compare", parents=[here], help="several studies side by side")
    compare.add_argument("study", nargs="+", metavar="STUDY")
    compare.add_argument(
        "--out", type=Path, default=Path("outputs/compare"), help="folder (default: %(default)s)"
    )
    blind = commands.add_parser("blind", parents=[here], help="a page for blind votes on pictures")
    blind.add_argument("study", metavar="STUDY")
    blind.add_argument("--trial", type=int, metavar="N", help="default: the recommended point")
    blind.add_argument("--out", type=Path, help="file (default: blind.html in the study's folder)")
    votes = commands.add_parser("votes", help="the result of saved votes")
    votes.add_argument("file", nargs="+", type=Path, metavar="FILE")
    return parser, {
        "page": _page,
        "table": _table,
        "compare": _compare,
        "blind": _blind,
        "votes": _votes,
    }


def main(arguments: Sequence[str]) -> int:
    """Do what is asked; 2 for a wrong value, which is told in one line."""
    try:
        parser, tasks = _parser()
        if arguments and not arguments[0].startswith("-") and arguments[0] not in tasks:
            raise UsageError(f"unknown command {arguments[0]!r}{nearest(arguments[0], tasks)}")
        given = parser.parse_args(arguments)
        tasks[given.command](given)
    except UsageError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    except OSError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    return 0


def _page(given: argparse.Namespace) -> None:
    from engine.report.page import write_study_report
    from engine.report.studies import find

    for name in given.study:
        print(write_study_report(find(name, given.sweeps)))


def _table(given: argparse.Namespace) -> None:
    from engine.report import table
    from engine.report.material import read_front
    from engine.report.studies import find

    for name in given.study:
        print(table.markdown(*read_front(find(name, given.sweeps))))


def _compare(given: argparse.Namespace) -> None:
    from engine import console
    from engine.report import compare, studies

    found = studies.read_all(given.study, given.sweeps)
    console.show(compare.table(found))
    for words in compare.remarks(found):
        console.say(f"* {words}")
    for path in compare.write(found, given.out):
        console.say(str(path))


def _blind(given: argparse.Namespace) -> None:
    from engine.report import blind
    from engine.report.material import read_study
    from engine.report.page import write_page
    from engine.report.studies import find

    folder = find(given.study, given.sweeps)
    material = read_study(folder)
    result = blind.choose(material, given.trial)
    print(write_page(given.out or folder / "blind.html", blind.render(material, result)))


def _votes(given: argparse.Namespace) -> None:
    from engine.report import votes

    for line in votes.lines(given.file):
        print(line)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
