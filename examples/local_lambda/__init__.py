"""Owns a small local AWS Lambda: the Runtime API and the Extensions API, and one sandbox with all phases of its life.

The sandbox is the stock runtime, `python -m awslambdaric module.handler`, as a process of its own. It is
stopped (SIGSTOP) the moment it asks for its next event, continued (SIGCONT) when there is one, and killed
(SIGKILL) while it is frozen, as Lambda does. Knows nothing of metrics.

    async with LocalLambda("my_module.handler", cwd=folder, env={"STAGE": "test"}) as sandbox:
        result = await sandbox.invoke({"order": 1})
        print(result.payload, result.billed_ms)

What else a sandbox's life may be, and what a function is told of it:

- `initialization="provisioned-concurrency"`: INIT may be hours before the first invocation, and take longer.
- `initialization="snap-start"`: entering returns when the snapshot is taken; `restore()`, or the first `invoke()`,
  restores it. Lambda clones one snapshot into many sandboxes. Here the process stands in for its own clone: what a
  clone would share with the others (ids, random numbers, connections) it still has, as its hooks find it in Lambda.
- `concurrency=4`: managed instances. The runtime forks four workers, each with one invocation at a time; nothing is
  ever frozen, and a worker that passes its deadline goes on.
- A function that registers an *internal extension* (`internal_extension.py`) is frozen only when that waits for its
  next event too, and at the end it gets SIGTERM and half a second before SIGKILL. External extensions, which are
  processes of their own, are not started.

Lambda freezes and destroys a whole virtual machine, here it is one process. Its kernel goes on transmitting what it
holds already, and resets its connections when it is killed, where a destroyed machine says nothing. To see the whole
freeze, give the sandbox a machine of its own, whose link is cut as long as it is frozen: `machine=network.sandbox`, see
`local_network`. The clocks go on in any case. Linux only, as `awslambdaric` is.
"""

from .process import Machine
from .results import FunctionError, InitError, Result, SandboxError
from .sandbox import LocalLambda

__all__ = ["FunctionError", "InitError", "LocalLambda", "Machine", "Result", "SandboxError"]
