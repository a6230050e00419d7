"""Why a boot failed, left for the master: it prints it once, whoever and however many failed."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from pulpo_pool.errors import AppImportError, ExitCode, PulpoPoolError

if TYPE_CHECKING:
    from pulpo_pool.worker.process import WorkerPlan


def leave_boot_error(error: BaseException, plan: WorkerPlan) -> None:
    """Say it in the words of its kind: an app's own traceback, a mistake's own text."""
    if isinstance(error, AppImportError):
        text, code = error.app_traceback(), error.exit_code
    elif isinstance(error, PulpoPoolError):
        text, code = str(error), error.exit_code
    else:
        text = "".join(traceback.format_exception(error))
        code = ExitCode.APP_DOES_NOT_BOOT
    plan.leave_boot_error(code, text)
