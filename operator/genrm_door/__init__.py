"""The door in front of an engine: what runs inside engine pods, and nowhere else.

The operator ships this folder as the text of a ConfigMap, mounted at /genrm/genrm_door in the *unchanged* image of the
engine. So it is flat, uses the standard library only, imports nothing of ours and runs on Python 3.10 and later.

`launcher` is the pod's command: it puts the door into the engine's server and becomes that server. `weights` looks up
for it which commit a model's branch is. `asgi` is the door: the middleware that every request meets first. `routes`
says which of an engine's routes exist for whom. `record` is what the door remembers: state, who is inside, and the
ledger of admin calls. docs/reference/door.md is the contract.
"""

from genrm_door.asgi import Door, Settings
from genrm_door.record import Record, State
from genrm_door.routes import ROUTES, EngineRoutes, Kind

__all__ = ["ROUTES", "Door", "EngineRoutes", "Kind", "Record", "Settings", "State"]
