"""The model hub: whether it answers, who we are there, and where its files are kept."""

from __future__ import annotations

from collections.abc import Iterator

from kt_cli.diagnosis.finding import Asked, Finding, green, yellow
from kt_cli.errors import counted, first_line
from kt_cli.zoo import timm_registry
from kt_cli.zoo.prefetch import hub_folder

PREFETCH = "Fetch what you need where there is a network: kt models prefetch SELECTION."


def reachable(asked: Asked) -> Iterator[Finding]:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        yield yellow(
            "switched off by HF_HUB_OFFLINE: only weights in the cache can be used",
            f"Right for jobs on a cluster. {PREFETCH}",
        )
    elif timm_registry.hub_answers():
        yield green(f"{constants.ENDPOINT} answers")
    else:
        yield yellow(
            f"{constants.ENDPOINT} does not answer: only weights in the cache can be used",
            f"Behind a proxy set HTTPS_PROXY; for a mirror HF_ENDPOINT. {PREFETCH}",
        )


def token(asked: Asked) -> Iterator[Finding]:
    """Restricted models need one; that it is there says nothing of whether it is valid."""
    from huggingface_hub import constants, get_token, whoami

    found = get_token()
    if found is None:
        yield green("no token: restricted models are out of reach (HF_TOKEN, or hf auth login)")
    elif constants.HF_HUB_OFFLINE or not timm_registry.hub_answers():
        yield green("there is a token; it cannot be tried now")
    else:
        try:
            yield green(f"logged in as {whoami(token=found)['name']}")
        except Exception as error:  # whatever the HTTP library of the day raises
            said = f"the token is not accepted: {first_line(error)}"
            yield yellow(said, "Make a new one: hf auth login.")


def weights(asked: Asked) -> Iterator[Finding]:
    """What the hub's cache holds."""
    folder = hub_folder()
    count = len(list(folder.glob("models--*")))
    if count:
        yield green(f"{folder} (HF_HOME): {counted(count, 'model')}")
    else:
        yield yellow(f"{folder} (HF_HOME) holds no models yet", PREFETCH)
