"""Top-1 of a published model on the user's images, against the figure that timm publishes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from scipy.stats import binomtest

from kt_cli.data.sources import open_data
from kt_cli.device import pick_device
from kt_cli.diagnosis.data import evaluation, is_imagenet
from kt_cli.diagnosis.finding import Asked, Finding, green, red, yellow
from kt_cli.knowledge.predict import How, predict
from kt_cli.knowledge.predictions import Predictions
from kt_cli.settings import EvalSpec
from kt_cli.spec import Model
from kt_cli.zoo import names, timm_package, timm_registry
from kt_cli.zoo.imagenet_facts import Fact, facts

SURE = 0.001  # probability with which a right installation is called wrong
SMALLEST = "resnet18.a1_in1k"


def published_top1(asked: Asked) -> Iterator[Finding]:
    """Evaluate the cheapest published model of the cache on up to `limit` images."""
    found = evaluation(asked.data)
    if asked.data is None or found is None:
        return
    if not is_imagenet(found):
        yield green("not compared with published figures: the images are not ImageNet's")
        return
    fact = cheapest()
    if fact is None:
        yield yellow(
            "the cache holds no model with a published figure to compare with",
            f"kt models prefetch {SMALLEST}, then kt doctor again.",
        )
        return
    limit = min(asked.limit, asked.data.limit or asked.limit)
    some = open_data(replace(asked.data, limit=limit)).eval
    (model,) = names.resolve([fact.model])
    said = predict(model, some, How(EvalSpec(), pick_device()), asked.progress)
    yield judged(fact, model, said)


def cheapest() -> Fact | None:
    """Of the models in the cache whose figure is that of their own test size, if any."""

    def comparable(fact: Fact) -> bool:
        if timm_registry.cached(fact.model) is None:
            return False
        return timm_package.config(fact.model).test_size == fact.img_size

    def cost(fact: Fact) -> tuple[float, str]:
        return fact.gmacs or math.inf, fact.model

    return min(filter(comparable, facts()), key=cost, default=None)


def judged(fact: Fact, model: Model, said: Predictions) -> Finding:
    """Within binomial error of the published figure, or not."""
    right, n = int(said.right.sum()), len(said.right)
    probability = float(binomtest(right, n, fact.top1 / 100).pvalue)
    error = 100 * math.sqrt(fact.top1 / 100 * (1 - fact.top1 / 100) / n)
    shown = (
        f"{model.name}: {said.accuracy:.2f}% top-1 on {n:,} images, {fact.top1:.2f}% published "
        f"(standard error {error:.2f}, p = {probability:.2g})"
    )
    if probability >= SURE:
        return green(shown)
    return red(
        shown,
        "Labels and images do not belong together: are the folders' classes, or --class-map and "
        "--labels, in ImageNet's order?"
        if said.accuracy < fact.top1 / 2
        else "Are these ImageNet's own validation images, whole and not shrunk? Else other test "
        "sets have other figures.",
    )
