"""What the run loads from elsewhere: whether it is there, and whether the Hub would let it be downloaded."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait

from topxgen.common import hub, needs
from topxgen.common.errors import reason
from topxgen.doctor import NOTE, PROBLEM, UNKNOWN, Finding, note, ok
from topxgen.doctor.situation import ANSWER_S, Situation
from topxgen.experiments.assets import Asset


def assets(situation: Situation) -> Iterator[Finding]:
    """One problem for each thing that is missing or damaged; where the Hub can be asked, what it has is downloaded by the run."""
    every = [one for one in situation.assets if one.kind != needs.COMET_PYTHON]  # see environments
    whole = [one for one in every if not one.problem]
    for one in every:
        if not one.problem:
            continue
        by_itself = one.is_on_hub or one.kind == needs.SENTENCEPIECE
        to_come = by_itself and one.problem == hub.NOT_DOWNLOADED and situation.asks_hub
        text = f"{one.kind} for {', '.join(one.stages)}: {one.problem}"
        if to_come:
            size = situation.download_bytes(one)
            unknown = f", {UNKNOWN}its size" if one.is_on_hub else ""
            about = unknown if size is None else f", {size / 1e9:,.2f} GB"
            yield note(one.name, f"{text}; the run downloads it{about}", "scripts/prefetch.py RUN.yaml does so now")
        else:
            level, without = (NOTE, f"; {one.fallback}") if one.fallback else (PROBLEM, "")
            yield Finding(level, one.name, text + without, one.remedy)
    if whole:
        size = sum(one.size for one in whole) / 1e9
        yield ok("downloads", f"{len(whole)} of {len(every)} models and data sets are there, {size:,.2f} GB")


def access(situation: Situation) -> Iterator[Finding]:
    """Whether the token may download what is on the Hub, gated or private."""
    wanted = [one for one in situation.assets if one.is_on_hub]
    if not wanted:
        return
    if situation.offline:
        lacking = [one for one in wanted if one.problem]
        if lacking:
            remedy = "run this where there is internet"
            yield note("access", f"{UNKNOWN}not checked: offline (HF_HUB_OFFLINE); {len(lacking)} are not here", remedy)
        return
    from huggingface_hub import get_token

    if not situation.asks_hub:
        remedy = "scripts/prefetch.py RUN.yaml on a machine with internet"
        yield note("access", f"{UNKNOWN}not checked: the Hub cannot be reached from here", remedy)
        return
    token = get_token()
    pool = ThreadPoolExecutor(8)
    asked = [(one, pool.submit(_ask, one)) for one in wanted]
    wait([answer for _, answer in asked], timeout=ANSWER_S)
    granted = 0
    for one, answer in asked:
        try:
            finding = answer.result(0)
        except TimeoutError:
            finding = note(one.name, f"{UNKNOWN}the Hub did not answer within {ANSWER_S:g} s")
        granted += finding is None
        if finding is not None:
            yield finding
    pool.shutdown(wait=False, cancel_futures=True)
    if granted:
        text = f"{granted} of {len(wanted)} may be downloaded {'with your token' if token else 'without a token'}"
        yield ok("access", text)


def _ask(asset: Asset) -> Finding | None:
    """None: it may be downloaded."""
    from huggingface_hub import HfApi

    try:
        HfApi().auth_check(asset.name, repo_type=asset.repo_type)
        return None
    except Exception as error:  # of the HTTP client, a proxy, TLS
        refusal = hub.refusal(error, asset.name, asset.repo_type)
        if refusal is None:
            return note(asset.name, f"{UNKNOWN}the Hub was asked for access ({reason(error)})")
    text, remedy = refusal
    level, here = (PROBLEM, "") if asset.problem else (NOTE, "; it is here already")
    return Finding(level, asset.name, text + here, remedy)
