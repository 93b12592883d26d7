"""Why an engine could not start, in one line."""

import os

import pytest

from topxgen.inference.engine_log import cause, size

LOST = RuntimeError("Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}")
# As vLLM 0.32 prints it.
LOG = """\
(EngineCore pid=5) ERROR 11-29 12:57:40 [kernels.py:7] ImportError: optional kernels are not installed
(EngineCore pid=5) ERROR 11-29 12:57:48 [core.py:1510] EngineCore failed to start.
(EngineCore pid=5) ERROR 11-29 12:57:48 [core.py:1510]     raise ValueError(
(EngineCore pid=5) ERROR 11-29 12:57:48 [core.py:1510] {}
  File "core.py", line 1514, in run_engine_core
    raise e
Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause.
"""


@pytest.mark.parametrize(
    "error",
    ["ValueError: current platform cpu does not support ray.", "torch.OutOfMemoryError: CUDA out of memory. Tried"],
)
def test_the_error_that_an_exception_points_to(tmp_path, error):
    log = tmp_path / "engine.log"
    log.write_text("OSError: of an earlier start\n")
    start = size(log)
    assert cause(LOST, log, start).startswith("RuntimeError: Engine core initialization failed")
    with open(log, "a") as file:
        file.write(LOG.format(error))
    assert cause(LOST, log, start) == error
    assert cause(ValueError("max_model_len is too large"), log, start) == "ValueError: max_model_len is too large"


def test_a_log_that_cannot_be_read_back(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for log in (None, tmp_path / "none", tmp_path / "pipe"):
        assert size(log) == 0 and cause(LOST, log).startswith("RuntimeError: Engine core initialization failed")
