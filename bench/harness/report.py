# SPDX-License-Identifier: Apache-2.0
"""The report: targets, and every contest's table, each with the run that measured it.

results.md is for people, results.json holds all samples for programs. A run measures some or all;
what it measures replaces what an earlier run in the same directory found, and the rest stays, with
that run's machine, revision and versions beside it. A measurement that failed stands among the
targets as not met, and what went wrong below them.

    {"runs": [{"machine": {}, "versions": {}, "settings": {},
               "measurements": {NAME: {"results": [{"title", "units", "contenders", "checks",
                                                    "note"}],
                                       "failure": text or null}}}]}
"""
import dataclasses
import datetime
import json
import os
import platform

import peers
from harness import world as worlds


@dataclasses.dataclass
class Report:
    """What one run of bench/run found."""

    machine: dict
    versions: dict
    settings: dict
    measurements: dict = dataclasses.field(default_factory=dict)

    def add(self, name, result):
        """Notes a Result of the measurement `name`."""
        self._measurement(name)["results"].append(_as_dictionary(result))

    def fail(self, name, text):
        """Notes that the measurement `name` could not be finished, and why."""
        self._measurement(name)["failure"] = text

    def has_failed(self):
        """Whether any measurement did."""
        return any(one["failure"] for one in self.measurements.values())

    def summary(self):
        """How many targets of this run were met, in words."""
        return _summary([dataclasses.asdict(self)])

    def write(self, directory, order):
        """Writes results.md and results.json into a directory, together with what is there of
        other measurements. `order`: the names of all measurements."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / "results.json"
        earlier = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else []
        runs = merge(earlier, dataclasses.asdict(self), order)
        path.write_text(json.dumps({"runs": runs}, indent=1) + "\n", encoding="utf-8")
        (directory / "results.md").write_text(markdown(runs), encoding="utf-8")

    def _measurement(self, name):
        return self.measurements.setdefault(name, {"results": [], "failure": None})


def merge(earlier, newest, order):
    """The runs that still count: of an earlier one only what the newest has not measured, and what
    is still measured at all."""
    kept = []
    for run in (*earlier, newest):
        replaced = newest["measurements"] if run is not newest else {}
        names = [name for name in order if name in run["measurements"] and name not in replaced]
        if names:
            kept.append({**run, "measurements": {name: run["measurements"][name]
                                                 for name in names}})
    return kept


def markdown(runs):
    """The content of results.md."""
    lines = ["# Measured: ringdisk and its peers", "",
             "Written by `bench/run`; bench/README.md says how to read it.", "",
             f"## {_summary(runs)}", ""]
    lines += _table(["measurement", "measured", "must reach", "met", "run"],
                    [(check["what"], check["measured"], check["target"],
                      "yes" if check["met"] else "**no**", number)
                     for number, run in enumerate(runs, 1) for check in _checks([run])])
    for number, run in enumerate(runs, 1):
        lines += ["", f"## Run {number}", ""]
        lines += [f"- {key}: {value}" for key, value in {**run["machine"],
                                                         **run["settings"]}.items()]
        lines += ["", *_table(["program", "version"], run["versions"].items())]
        for name, measurement in run["measurements"].items():
            if measurement["failure"]:
                lines += ["", f"{name} failed:", "", "```", measurement["failure"], "```"]
            for result in measurement["results"]:
                lines += ["", f"### {result['title']}", "", *_contest_table(result)]
                if result["note"]:
                    lines += ["", result["note"]]
    return "\n".join(lines) + "\n"


def _checks(runs):
    """Every check of some runs, and one that is not met for each failure."""
    for run in runs:
        for name, measurement in run["measurements"].items():
            for result in measurement["results"]:
                yield from result["checks"]
            if measurement["failure"]:
                yield {"what": name, "measured": "failed", "target": "to be measured",
                       "met": False}


def _summary(runs):
    checks = list(_checks(runs))
    return f"{sum(check['met'] for check in checks)} of {len(checks)} targets met"


def _as_dictionary(result):
    contenders = [{"name": series.name, "samples": series.samples,
                   "medians": {metric: series.median(metric) for metric in series.samples[0]},
                   "spreads": {metric: series.spread(metric) for metric in series.samples[0]}}
                  for series in result.series]
    return {"title": result.title, "units": result.units, "contenders": contenders,
            "note": result.note, "checks": [dataclasses.asdict(check) for check in result.checks]}


def _contest_table(result):
    header = ["", *result["units"].values()]
    rows = [(one["name"], *(_with_spread(one, metric) for metric in result["units"]))
            for one in result["contenders"]]
    return _table(header, rows)


def _with_spread(contender, metric):
    smallest, largest = contender["spreads"][metric]
    return f"{_short(contender['medians'][metric])} ({_short(smallest)} to {_short(largest)})"


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
