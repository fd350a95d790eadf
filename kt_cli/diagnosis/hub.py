"""The model hub: whether it answers, who we are there, and where its files are kept."""

from __future__ import annotations

from kt_cli.diagnosis.finding import Asked, Finding, green, yellow
from kt_cli.errors import counted, first_line
from kt_cli.zoo import timm_registry
from kt_cli.zoo.prefetch import hub_folder

PREFETCH = "Fetch what you need where there is a network: kt models prefetch SELECTION."


def reachable(asked: Asked) -> Finding:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return yellow(
            "switched off by HF_HUB_OFFLINE: only weights in the cache can be used",
            f"Right for jobs on a cluster. {PREFETCH}",
        )
    if timm_registry.hub_answers():
        return green(f"{constants.ENDPOINT} answers")
    return yellow(
        f"{constants.ENDPOINT} does not answer: only weights in the cache can be used",
        f"Behind a proxy set HTTPS_PROXY; for a mirror HF_ENDPOINT. {PREFETCH}",
    )


def token(asked: Asked) -> Finding:
    """Restricted models need one; that it is there says nothing of whether it is valid."""
    from huggingface_hub import constants, get_token, whoami

    found = get_token()
    if found is None:
        return green("no token: restricted models are out of reach (HF_TOKEN, or hf auth login)")
    if constants.HF_HUB_OFFLINE or not timm_registry.hub_answers():
        return green("there is a token; it cannot be tried now")
    try:
        return green(f"logged in as {whoami(token=found)['name']}")
    except Exception as error:  # whatever the HTTP library of the day raises
        said = f"the token is not accepted: {first_line(error)}"
        return yellow(said, "Make a new one: hf auth login.")


def weights(asked: Asked) -> Finding:
    """What the hub's cache holds."""
    folder = hub_folder()
    count = len(list(folder.glob("models--*")))
    if count:
        return green(f"{folder} (HF_HOME): {counted(count, 'model')}")
    return yellow(f"{folder} (HF_HOME) holds no models yet", PREFETCH)
