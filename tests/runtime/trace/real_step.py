"""The real step of TraceJobs on real tensors, in one process: `python real_step.py`, jobs as JSON on stdin.

Run by test_trace.py, not collected. Prints, for each job, the kinds of memory at the peak.
"""

import json
import sys
import warnings

import msgspec

from trainwright.runtime import host
from trainwright.spec.traced import TraceJob

host.install()
warnings.simplefilter("ignore")  # a child process: what Megatron warns of is tested elsewhere

from trainwright.runtime.trace.rank import trace_step  # noqa: E402
from trainwright.runtime.train import parallel  # noqa: E402

parallel.single()
peaks = []
for job in msgspec.json.decode(sys.stdin.buffer.read(), type=list[TraceJob]):
    allocations = trace_step(job.stage, micro_batches=job.stage.layout.micro_batches, seed=1)
    peaks.append(allocations.peak.kinds)
print(json.dumps(peaks))
