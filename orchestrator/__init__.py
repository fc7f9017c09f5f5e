"""The system around ``elth``: experiments, plans, Ray, MLflow, reports and the command line.

What Ray and MLflow take from the environment gets its defaults here, before either is used. From
Python it is two functions::

    import orchestrator

    orchestrator.run("quickstart", ["seeds=[0]"])
    orchestrator.results("quickstart").frame()
"""

import os
from typing import TYPE_CHECKING

from elth._lazy import lazily

if TYPE_CHECKING:
    from orchestrator.cli.notebook import Results, results, run
else:
    __getattr__, __dir__ = lazily(
        __name__, {"orchestrator.cli.notebook": ("Results", "results", "run")}
    )

__all__ = ["Results", "results", "run"]

for _name, _value in {
    "RAY_AIR_NEW_OUTPUT": "0",  # the old output engine, which obeys verbose=0
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
}.items():
    os.environ.setdefault(_name, _value)
