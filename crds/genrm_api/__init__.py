"""The genrm.dev API: custom resources as pydantic models, and the words that the operator and its clients share.

`rewardmodel` is the one source of truth for the resource; `crd` writes the CRD manifest from it; `names` holds labels,
annotations, ports and child names; `leases` is the demand protocol between training runs and the operator.
Nothing here does I/O.
"""

from genrm_api.names import GROUP, VERSION

__all__ = ["GROUP", "VERSION"]
