"""What users import: ``App`` declares workflows, ``Event`` is what came, ``Context`` does steps and replies.

The room decides nothing about storage or threads: a ``Context`` speaks to whoever executes the run through
``kernel/seam/run.py``, and the worker is on the other side.
"""

from seawall.kernel.allowance import Limit, Rate
from seawall.workflow.app import App, Workflow
from seawall.workflow.approval import Approval, ApprovalRequest
from seawall.workflow.child import RunFailed
from seawall.workflow.context import Context, Unkeepable, encoded
from seawall.workflow.event import Event, Headers, NotJSON
from seawall.workflow.retry import NonRetryable, Retry, StepFailed, may_retry

__all__ = [
    "App", "Approval", "ApprovalRequest", "Context", "Event", "Headers", "Limit", "NonRetryable", "NotJSON", "Rate",
    "Retry", "RunFailed", "StepFailed", "Unkeepable", "Workflow", "encoded", "may_retry",
]  # fmt: skip
