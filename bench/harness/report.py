# SPDX-License-Identifier: Apache-2.0
"""The report of a run: the machine, the programs' versions, targets, and every contest's table.

results.md is for people, results.json holds all samples for programs. A measurement that failed
stands among the targets as not met, and what went wrong below them.
"""
import dataclasses
import datetime
import json
import os
import platform

import peers
from harness import contest
from harness import world as worlds


@dataclasses.dataclass
class Report:
    """What one run of bench/run found."""

    machine: dict
    versions: dict
    settings: dict
    results: list = dataclasses.field(default_factory=list)
    failures: dict = dataclasses.field(default_factory=dict)  # name of measurement -> what failed

    def all_checks(self):
        """Every check of every result, and one that is not met for each failure."""
        failed = [contest.Check(name, "failed", "to be measured", False) for name in self.failures]
        return [check for result in self.results for check in result.checks] + failed

    def summary(self):
        """How many targets were met, in words."""
        met = sum(check.met for check in self.all_checks())
        return f"{met} of {len(self.all_checks())} targets met"

    def write(self, directory):
        """Writes results.md and results.json into a directory."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "results.md").write_text(self.markdown(), encoding="utf-8")
        (directory / "results.json").write_text(
            json.dumps(self.as_dictionary(), indent=1) + "\n", encoding="utf-8")

    def as_dictionary(self):
        """The content of results.json."""
        def one(result):
            contenders = [{"name": series.name, "samples": series.samples,
                           "medians": {metric: series.median(metric)
                                       for metric in series.samples[0]}}
                          for series in result.series]
            return {"title": result.title, "contenders": contenders, "note": result.note,
                    "checks": [dataclasses.asdict(check) for check in result.checks]}
        return {"machine": self.machine, "versions": self.versions, "settings": self.settings,
                "results": [one(result) for result in self.results], "failures": self.failures}

    def markdown(self):
        """The content of results.md."""
        lines = ["# Measured: ringdisk and its peers", "",
                 "Written by `bench/run`; bench/README.md says how to read it.", ""]
        lines += [f"- {key}: {value}" for key, value in {**self.machine, **self.settings}.items()]
        lines += ["", *_table(["program", "version"], self.versions.items()), "",
                  f"## {self.summary()}", ""]
        lines += _table(["measurement", "measured", "must reach", "met"],
                        [(check.what, check.measured, check.target,
                          "yes" if check.met else "**no**") for check in self.all_checks()])
        for name, text in self.failures.items():
            lines += ["", f"{name} failed:", "", "```", text, "```"]
        for result in self.results:
            lines += ["", f"## {result.title}", "", *_contest_table(result)]
            if result.note:
                lines += ["", result.note]
        return "\n".join(lines) + "\n"


def _contest_table(result):
    header = ["", *result.units.values()]
    rows = [(series.name, *(_with_spread(series, metric) for metric in result.units))
            for series in result.series]
    return _table(header, rows)


def _with_spread(series, metric):
    smallest, largest = series.spread(metric)
    return f"{_short(series.median(metric))} ({_short(smallest)} to {_short(largest)})"


def _short(value):
    """A number with the digits that mean something."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def _table(header, rows):
    return [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}",
            *(f"| {' | '.join(str(cell).replace('|', '/') for cell in row)} |" for row in rows)]


def versions_of(world):
    """What each program says it is; probes are the repository's."""
    return {name: peers.version(path) for name, path in world.programs.items()
            if name not in worlds.PROBES}


def settings_of(settings):
    """How it was measured, in words."""
    return {"runs": f"{settings.runs} of each contender, in turn: median (smallest to largest)",
            "data": f"{settings.image_bytes // worlds.MIB} MiB incompressible",
            "load": f"{settings.load_seconds} s a run"}


def describe_machine(world):
    """What the figures depend on."""
    processor = _first_value("/proc/cpuinfo", "model name") or platform.machine()
    memory = int(_first_value("/proc/meminfo", "MemTotal").split()[0]) >> 20
    return {"date": datetime.date.today().isoformat(), "revision": _revision(),
            "machine": f"{len(os.sched_getaffinity(0))} cores of {processor}, {memory} GiB",
            "kernel": os.uname().release,
            "disk": worlds.filesystem_of(world.disk),
            "load average at the start": f"{os.getloadavg()[0]:.2f}"}


def _revision():
    try:
        return peers.run(["git", "-C", peers.REPOSITORY, "describe", "--always",
                          "--dirty"]).stdout.strip()
    except (OSError, peers.PeerFailed):
        return "unknown"


def _first_value(path, key):
    with open(path, encoding="utf-8") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    return None
