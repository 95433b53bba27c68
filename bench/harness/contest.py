# SPDX-License-Identifier: Apache-2.0
"""Contenders run in turn, their samples, and the checks of what was measured.

    round 1:  A B C      The machine drifts and single runs vary by a quarter, so the contenders
    round 2:  B C A      take turns within every round, each round begins with another one, and
    round 3:  C A B      medians are compared.
"""
import dataclasses
import statistics
import typing


def nothing():
    """A contender that needs no preparation."""


@dataclasses.dataclass(frozen=True)
class Contender:
    """One program in one way of use. `run` does the work once and gives a sample: a number for
    each metric. `prepare` goes before each run, untimed; `verify` after the first one, and raises
    when the work was not done right."""

    name: str
    run: typing.Callable[[], dict]
    prepare: typing.Callable[[], None] = nothing
    verify: typing.Callable[[], None] = nothing


@dataclasses.dataclass
class Series:
    """All samples of one contender."""

    name: str
    samples: list = dataclasses.field(default_factory=list)

    def median(self, metric):
        """The median of one metric."""
        return statistics.median(sample[metric] for sample in self.samples)

    def spread(self, metric):
        """The smallest and the largest value of one metric."""
        values = [sample[metric] for sample in self.samples]
        return min(values), max(values)


@dataclasses.dataclass(frozen=True)
class Check:
    """One line of the table of targets: what was measured, what it must reach, whether it did.
    `ratios` are the numbers behind it, for programs that read the results."""

    what: str
    measured: str
    target: str
    met: bool
    ratios: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Result:
    """What one contest gave. `units` names the metrics that the report shows, with their units."""

    title: str
    units: dict
    series: list
    checks: list
    note: str = ""


def alternate(contenders, runs, log, warm=False):
    """Runs the contenders in turn `runs` times; gives {name: Series}. `warm`: each runs once more
    before, uncounted, since the first touch of memory or of a disk's blocks costs several times
    the work."""
    series = {contender.name: Series(contender.name) for contender in contenders}
    for contender in contenders if warm else ():
        contender.prepare()
        contender.run()
    for number in range(runs):
        first = number % len(contenders)
        for contender in contenders[first:] + contenders[:first]:
            contender.prepare()
            sample = contender.run()
            series[contender.name].samples.append(sample)
            shown = ", ".join(f"{metric} {value:.4g}" for metric, value in sample.items())
            log(f"  {number + 1}/{runs} {contender.name}: {shown}")
            if number == 0:
                contender.verify()
    return series


def least(series, metric):
    """The one of several Series whose median of `metric` is smallest."""
    return min(series, key=lambda one: one.median(metric))


def most(series, metric):
    """The one of several Series whose median of `metric` is largest."""
    return max(series, key=lambda one: one.median(metric))


def ratio(one, other, metric):
    """The median of `one` divided by that of `other`; infinite when that is zero."""
    divisor = other.median(metric)
    return one.median(metric) / divisor if divisor else float("inf")


def check_at_most(what, one, other, metric, limit):
    """A Check that `one` is at most `limit` times `other`."""
    value = ratio(one, other, metric)
    return _ratio_check(what, other, metric, value, f"at most {limit:g}", value <= limit)


def check_at_least(what, one, other, metric, limit):
    """A Check that `one` is at least `limit` times `other`."""
    value = ratio(one, other, metric)
    return _ratio_check(what, other, metric, value, f"at least {limit:g}", value >= limit)


def _ratio_check(what, other, metric, value, target, met):
    return Check(what, f"{value:.2f} of {other.name}", target, met,
                 {f"{metric} to {other.name}": value})
