"""How the API samplers handle provider faults: a table, with the official clients against a local server.

    python scripts/perf/api_faults.py --requests 60 --max_concurrent_requests 16 --every 3

Every third request fails at its first attempt. Lost: requests without a response, or with that of another.
"""

import time
from collections import Counter

from measuring import command_line

from tests.support.api_server import FAULTS, KEY, ApiServer
from topxgen import inference
from topxgen.inference import ModelSettings, Request, SamplingSettings, from_list


def run(api: str, fault: str, args) -> str:
    """One row."""
    faults = {(f"p{i}", 1): fault for i in range(0, args.requests, args.every)}
    requests = [Request(f"p{i}", [{"role": "user", "content": f"p{i} please"}], i) for i in range(args.requests)]
    with ApiServer(faults) as server:
        settings = ModelSettings(
            "m",
            api_key=KEY,
            base_url=server.url(api),
            max_concurrent_requests=args.max_concurrent_requests,
            request_timeout=1.0,
        )
        sampler = inference.load(api, settings)
        sampler.base_delay = 0.1
        began = time.perf_counter()
        answers = list(sampler.generate(from_list(requests), SamplingSettings()))
        seconds = time.perf_counter() - began
        sampler.close()
    right = Counter(answer.id for answer in answers if answer.texts == [f"answer to {answer.id} please"])
    lost = sum(right[request.id] != 1 for request in requests)
    twice = sum(count > 1 for count in server.delivered.values())
    retries = ", ".join(f"{count} {kind}" for kind, count in sampler.retries.items())
    cells = (api, fault, server.injected[fault], len(answers), lost, twice, retries, f"{seconds:.1f}")
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--requests", type=int, default=60)
    parser.add_argument("--max_concurrent_requests", type=int, default=16)
    parser.add_argument("--every", type=int, default=3)
    args = parser.parse_args()
    print("| API | fault | injected | answers | lost | delivered twice | retries | seconds |")
    print("|---|---|---:|---:|---:|---:|---|---:|")
    for api in inference.REMOTE:
        for fault in FAULTS:
            print(run(api, fault, args), flush=True)


if __name__ == "__main__":
    main()
